//! IEC 62056-21 ASCII (modes A, C, D): bytes → telegrams.
//!
//! In: bytes as they come, cut anywhere, seven bits or eight. Out: telegrams. Invariant: a telegram counts only when it
//! came whole, from its identification to its end, and with a right block check where it has one.
//!
//! ```text
//!  /XYZ5ident CR LF  [STX]  1-0:1.8.0*255(000123.4*kWh) CR LF …  ! CR LF  [ETX BCC]
//! ```

use super::telegram::{Obis, Telegram};

/// Longest telegram.
const LONGEST: usize = 16_384;
const STX: u8 = 0x02;
const ETX: u8 = 0x03;

/// Finds telegrams in a stream.
#[derive(Debug, Default)]
pub struct Iec {
    bytes: Vec<u8>,
    /// Telegrams that were broken.
    pub broken: u64,
}

/// The meter's first line, to which the reader answers in mode C (§6.3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identification {
    /// The fastest speed that it offers, as its character.
    pub speed: u8,
    /// Manufacturer and type.
    pub text: String,
}

impl Identification {
    /// Bits per second of a mode C character (§6.3.14 table 1).
    #[must_use]
    pub const fn baud(&self) -> Option<u32> {
        match self.speed {
            b'0' => Some(300),
            b'1' => Some(600),
            b'2' => Some(1200),
            b'3' => Some(2400),
            b'4' => Some(4800),
            b'5' => Some(9600),
            b'6' => Some(19_200),
            _ => None,
        }
    }

    /// Reads `/XYZ5…`, without its end.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let line = line.strip_prefix(b"/")?;
        let speed = *line.get(3)?;
        let text = |b: &[u8]| String::from_utf8_lossy(b).trim().to_owned();
        line[..3].iter().all(u8::is_ascii_alphabetic).then(|| Self { speed, text: text(line) })
    }
}

impl Iec {
    /// Takes bytes in; returns the telegrams that became whole.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Telegram> {
        // The line may be set to eight bits: the parity bit is no part of a character.
        self.bytes.extend(bytes.iter().map(|b| b & 0x7F));
        let mut telegrams = Vec::new();
        loop {
            // What stands before the first slash at a line's begin is the rest of a cut telegram.
            match self.bytes.iter().position(|b| *b == b'/') {
                None => self.bytes.clear(),
                Some(start) => drop(self.bytes.drain(..start)),
            }
            match whole(&self.bytes) {
                Part::More if self.bytes.len() > LONGEST => {
                    self.broken += 1;
                    self.bytes.drain(..1);
                }
                Part::More => return telegrams,
                Part::Whole { data, end } => {
                    match telegram(&self.bytes[data]) {
                        Some(telegram) => telegrams.push(telegram),
                        None => self.broken += 1,
                    }
                    self.bytes.drain(..end);
                }
                Part::Broken { end } => {
                    self.broken += 1;
                    self.bytes.drain(..end.max(1));
                }
            }
        }
    }
}

enum Part {
    More,
    Whole { data: std::ops::Range<usize>, end: usize },
    Broken { end: usize },
}

/// Looks for the end of the telegram that begins with the slash at 0.
fn whole(bytes: &[u8]) -> Part {
    let Some(line) = bytes.iter().position(|b| *b == b'\n') else { return Part::More };
    // Another identification before this one ended: the first was cut.
    if let Some(next) = bytes[1..line].iter().position(|b| *b == b'/') {
        return Part::Broken { end: next + 1 };
    }
    let body = line + 1;
    let end = bytes[body..].iter().position(|b| *b == b'!').map(|at| body + at);
    // Neither slash nor exclamation mark is part of any data (§6.5): another slash before the end begins the next one.
    if let Some(next) = bytes[body..end.unwrap_or(bytes.len())].iter().position(|b| *b == b'/') {
        return Part::Broken { end: body + next };
    }
    let Some(end) = end else { return Part::More };
    let Some(stx) = bytes[body..end].iter().position(|b| *b == STX).map(|at| body + at) else {
        // Modes A and D: no block check.
        return Part::Whole { data: body..end, end: end + 1 };
    };
    let Some(etx) = bytes[end..].iter().position(|b| *b == ETX).map(|at| end + at) else {
        return if bytes.len() - end > 8 { Part::Broken { end: end + 1 } } else { Part::More };
    };
    let Some(check) = bytes.get(etx + 1) else { return Part::More };
    // §6.3.5: from behind STX to ETX, ETX included.
    let sum = bytes[stx + 1..=etx].iter().fold(0, |sum, b| sum ^ b);
    if sum == *check {
        Part::Whole { data: stx + 1..end, end: etx + 2 }
    } else {
        Part::Broken { end: etx + 2 }
    }
}

/// `A-B:C.D.E*F(value*unit)`, several in a line; what is of no use is passed over.
fn telegram(data: &[u8]) -> Option<Telegram> {
    let text = std::str::from_utf8(data).ok()?;
    let mut values = Vec::new();
    for line in text.lines() {
        let mut rest = line.trim();
        while let Some((id, tail)) = rest.split_once('(') {
            let Some((content, next)) = tail.split_once(')') else { break };
            rest = next;
            if let Some(value) = obis(id).zip(quantity(content)) {
                values.push(value);
            }
        }
    }
    (!values.is_empty()).then_some(Telegram { values })
}

fn obis(id: &str) -> Option<Obis> {
    let id = id.trim();
    let id = id.rsplit_once(':').map_or(id, |(_, code)| code);
    let id = id.split_once('*').map_or(id, |(code, _)| code);
    let mut parts = id.split('.');
    let mut next = || parts.next()?.parse().ok();
    let (c, d) = (next()?, next()?);
    // Reduced codes leave E out.
    Some(Obis(c, d, next().unwrap_or(0)))
}

fn quantity(content: &str) -> Option<f64> {
    let (number, unit) = content.split_once('*')?;
    let factor = match unit.trim() {
        "kWh" | "kW" => 1000.0,
        "Wh" | "W" | "V" | "A" | "Hz" => 1.0,
        "MWh" | "MW" => 1_000_000.0,
        "mA" | "mV" => 0.001,
        _ => return None,
    };
    let number: f64 = number.trim().replace(',', ".").parse().ok()?;
    number.is_finite().then_some(number * factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DATA: &str =
        "1-0:1.8.0*255(000123.456*kWh)\r\n1-0:16.7.0*255(-00250.5*W)\r\n2.8.0(1*kWh)\r\n0.0.0(12345678)\r\n";

    fn with_check() -> Vec<u8> {
        let mut bytes = b"/EMH5eHZ\r\n\x02".to_vec();
        let mut block = DATA.as_bytes().to_vec();
        block.extend(b"!\r\n\x03");
        let check = block.iter().fold(0, |sum, b| sum ^ b);
        bytes.extend(block);
        bytes.push(check);
        bytes
    }

    #[test]
    fn a_telegram_is_read_with_and_without_block_check_also_cut_and_with_parity_bits() {
        let plain = format!("/ESY5Q3D\r\n\r\n{DATA}!\r\n").into_bytes();
        for good in [plain, with_check()] {
            let mut stream = good[good.len() / 2..].to_vec();
            stream.extend(&good);
            stream.extend(good.iter().map(|b| b | 0x80));
            let mut iec = Iec::default();
            let mut telegrams = Vec::new();
            for piece in stream.chunks(5) {
                telegrams.extend(iec.push(piece));
            }
            assert_eq!(telegrams.len(), 2, "{iec:?}");
            assert!((telegrams[0].get(Obis(1, 8, 0)).unwrap() - 123_456.0).abs() < 1e-6);
            assert_eq!(telegrams[0].get(Obis(16, 7, 0)), Some(-250.5));
            assert_eq!(telegrams[1].get(Obis(2, 8, 0)), Some(1000.0));
            assert_eq!(telegrams[1].get(Obis(0, 0, 0)), None, "a number without a unit is no quantity");
        }
    }

    #[test]
    fn a_wrong_block_check_and_a_cut_telegram_never_count() {
        let mut wrong = with_check();
        wrong[20] ^= 1;
        let mut iec = Iec::default();
        assert_eq!(iec.push(&wrong), []);
        assert_eq!(iec.broken, 1);
        let cut = &with_check()[..40];
        assert_eq!(iec.push(cut), []);
        assert_eq!(iec.push(&with_check()).len(), 1);
    }

    #[test]
    fn an_identification_tells_its_speed() {
        let id = Identification::parse(b"/EMH5eHZ\r").unwrap();
        assert_eq!((id.baud(), id.text.as_str()), (Some(9600), "EMH5eHZ"));
        assert_eq!(Identification::parse(b"EMH5"), None);
        assert_eq!(Identification::parse(b"/EM"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut iec = Iec::default();
            for piece in bytes.chunks(13) {
                iec.push(piece);
            }
            // Whatever came before, a whole telegram behind it is found.
            iec.push(b"\r\n");
            iec.push(&with_check());
            prop_assert_eq!(iec.push(&with_check()).len(), 1);
        }
    }
}
