//! Frames of a serial line: RTU and ASCII (Modbus over Serial Line V1.02 §2.5). Sans-IO.
//!
//! In: a unit and a request; the bytes that came back so far. Out: the bytes to send, and a [`Verdict`] about those that
//! came. Invariant: bytes are an answer only if unit, function, length and check sum are right and nothing follows.

use super::pdu::{Mismatch, Request};

/// How a frame is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Binary with CRC-16, frames told apart by silence.
    Rtu,
    /// `:`, hexadecimal digits, LRC, CR LF.
    Ascii,
}

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The beginning of an answer.
    More,
    /// The whole answer: its registers.
    Answer(Vec<u16>),
    /// Not the answer. An exception is [`Mismatch::Exception`].
    Wrong(Mismatch),
}

/// Longest ASCII frame: 1 + 2 × 255 + 2 characters (§2.5.2.1), with room for CR LF.
const MOST_ASCII: usize = 520;

impl Mode {
    /// The frame of a request.
    #[must_use]
    pub fn encode(self, unit: u8, request: &Request) -> Vec<u8> {
        let mut frame = vec![unit];
        request.encode(&mut frame);
        match self {
            Self::Rtu => {
                let crc = crc16(&frame);
                frame.extend(crc.to_le_bytes());
                frame
            }
            Self::Ascii => {
                frame.push(lrc(&frame));
                let mut text = Vec::with_capacity(frame.len() * 2 + 3);
                text.push(b':');
                for byte in frame {
                    text.extend([digit(byte >> 4), digit(byte & 0x0F)]);
                }
                text.extend(b"\r\n");
                text
            }
        }
    }

    /// Characters of the answer that is expected.
    #[must_use]
    pub const fn answer_length(self, request: &Request) -> usize {
        match self {
            Self::Rtu => 3 + request.answer_length(),
            Self::Ascii => 5 + 2 * (1 + request.answer_length()),
        }
    }

    /// Judges what has come since the request was sent.
    #[must_use]
    pub fn judge(self, unit: u8, request: &Request, bytes: &[u8]) -> Verdict {
        match self {
            Self::Rtu => rtu(unit, request, bytes),
            Self::Ascii => ascii(unit, request, bytes),
        }
    }
}

fn rtu(unit: u8, request: &Request, bytes: &[u8]) -> Verdict {
    let [from, function, ..] = *bytes else {
        return match bytes.first() {
            Some(from) if *from != unit => Verdict::Wrong(Mismatch::Unit(*from)),
            _ => Verdict::More,
        };
    };
    if from != unit {
        return Verdict::Wrong(Mismatch::Unit(from));
    }
    let whole = if function == request.code() | 0x80 {
        5
    } else if function == request.code() {
        Mode::Rtu.answer_length(request)
    } else {
        return Verdict::Wrong(Mismatch::Function { asked: request.code(), answered: function });
    };
    // A read's answer tells its length: a wrong one need not be waited for.
    if let (Request::Read { count, .. }, true, Some(told)) =
        (request, function == request.code(), bytes.get(2))
        && usize::from(*told) != 2 * usize::from(*count)
    {
        let wanted = 2 * usize::from(*count);
        return Verdict::Wrong(Mismatch::Length { wanted, got: usize::from(*told) });
    }
    if bytes.len() < whole {
        return Verdict::More;
    }
    if bytes.len() > whole {
        return Verdict::Wrong(Mismatch::Frame("more bytes follow the answer"));
    }
    let (body, sum) = bytes.split_at(whole - 2);
    if crc16(body).to_le_bytes() != sum {
        return Verdict::Wrong(Mismatch::Checksum);
    }
    verdict(request.parse(&body[1..]))
}

fn ascii(unit: u8, request: &Request, bytes: &[u8]) -> Verdict {
    // What stands before the colon was noise (§2.5.2.1: a colon begins a frame, always).
    let Some(start) = bytes.iter().rposition(|b| *b == b':') else {
        return if bytes.len() > MOST_ASCII {
            Verdict::Wrong(Mismatch::Frame("no colon begins it"))
        } else {
            Verdict::More
        };
    };
    let text = &bytes[start + 1..];
    let Some(end) = text.iter().position(|b| *b == b'\n') else {
        return if text.len() > MOST_ASCII {
            Verdict::Wrong(Mismatch::Frame("it does not end"))
        } else {
            Verdict::More
        };
    };
    if end + 1 != text.len() {
        return Verdict::Wrong(Mismatch::Frame("more bytes follow the answer"));
    }
    let Some(digits) = text[..end].strip_suffix(b"\r") else {
        return Verdict::Wrong(Mismatch::Frame("it does not end in CR LF"));
    };
    if digits.len() % 2 != 0 || digits.len() < 6 {
        return Verdict::Wrong(Mismatch::Frame("a digit is missing"));
    }
    let mut frame = Vec::with_capacity(digits.len() / 2);
    for pair in digits.chunks_exact(2) {
        let (Some(high), Some(low)) = (value(pair[0]), value(pair[1])) else {
            return Verdict::Wrong(Mismatch::Frame("a character is no hexadecimal digit"));
        };
        frame.push(high << 4 | low);
    }
    let (body, sum) = frame.split_at(frame.len() - 1);
    if lrc(body) != sum[0] {
        return Verdict::Wrong(Mismatch::Checksum);
    }
    if body[0] != unit {
        return Verdict::Wrong(Mismatch::Unit(body[0]));
    }
    verdict(request.parse(&body[1..]))
}

fn verdict(parsed: Result<Vec<u16>, Mismatch>) -> Verdict {
    match parsed {
        Ok(registers) => Verdict::Answer(registers),
        Err(why) => Verdict::Wrong(why),
    }
}

/// CRC-16 (§2.5.1.2, appendix B): polynomial 0xA001 reflected, start 0xFFFF.
#[must_use]
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xA001 } else { crc >> 1 })
    })
}

/// Longitudinal redundancy check (§2.5.2.2): the sum's two's complement.
fn lrc(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

const fn digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 }
}

const fn value(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'A'..=b'F' => Some(character - b'A' + 10),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::device::definition::Function;

    const READ: Request = Request::Read { function: Function::Holding, start: 0, count: 1 };

    #[test]
    fn frames_are_those_of_the_specification() {
        // Known good: unit 17, function 3, from 0x006B, 3 registers.
        let request = Request::Read { function: Function::Holding, start: 0x006B, count: 3 };
        assert_eq!(Mode::Rtu.encode(17, &request), [0x11, 3, 0, 0x6B, 0, 3, 0x76, 0x87]);
        assert_eq!(Mode::Ascii.encode(17, &request), b":1103006B00037E\r\n");
    }

    #[test]
    fn answers_of_others_short_long_and_broken_ones_are_told_apart() {
        let good = [1, 3, 2, 0x12, 0x34, 0xB5, 0x33];
        assert_eq!(Mode::Rtu.judge(1, &READ, &good), Verdict::Answer(vec![0x1234]));
        for n in 0..good.len() {
            assert_eq!(Mode::Rtu.judge(1, &READ, &good[..n]), Verdict::More, "{n}");
        }
        let wrong = |bytes: &[u8]| match Mode::Rtu.judge(1, &READ, bytes) {
            Verdict::Wrong(why) => why,
            other => panic!("{bytes:?}: {other:?}"),
        };
        assert_eq!(wrong(&[&good[..], &[0]].concat()), Mismatch::Frame("more bytes follow the answer"));
        assert_eq!(wrong(&[2, 3]), Mismatch::Unit(2));
        assert_eq!(wrong(&[1, 4]), Mismatch::Function { asked: 3, answered: 4 });
        assert_eq!(wrong(&[1, 3, 4]), Mismatch::Length { wanted: 2, got: 4 });
        assert_eq!(wrong(&[1, 3, 2, 0x12, 0x35, 0xB5, 0x33]), Mismatch::Checksum);
        assert_eq!(wrong(&[1, 0x83, 2, 0xC0, 0xF1]), Mismatch::Exception(2));

        let text = |t: &str| Mode::Ascii.judge(1, &READ, t.as_bytes());
        assert_eq!(text("noise:0103021234B4\r\n"), Verdict::Answer(vec![0x1234]));
        assert_eq!(text(":0103021234B4"), Verdict::More);
        assert_eq!(text(":0103021234B5\r\n"), Verdict::Wrong(Mismatch::Checksum));
        assert_eq!(text(":0203021234B3\r\n"), Verdict::Wrong(Mismatch::Unit(2)));
        assert_eq!(
            text(":01030212Z4B4\r\n"),
            Verdict::Wrong(Mismatch::Frame("a character is no hexadecimal digit"))
        );
    }

    proptest! {
        /// One wrong bit is never believed, in either mode.
        #[test]
        fn a_flipped_bit_never_passes(value: u16, at in 0_usize..7, bit in 0_u32..8) {
            let mut frame = vec![1, 3, 2];
            frame.extend(value.to_be_bytes());
            let crc = crc16(&frame);
            frame.extend(crc.to_le_bytes());
            prop_assert_eq!(Mode::Rtu.judge(1, &READ, &frame), Verdict::Answer(vec![value]));
            frame[at] ^= 1 << bit;
            prop_assert!(!matches!(Mode::Rtu.judge(1, &READ, &frame), Verdict::Answer(_)));
        }

        #[test]
        fn no_bytes_break_it(unit: u8, start: u16, count in 1_u16..126, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let request = Request::Read { function: Function::Input, start, count };
            for mode in [Mode::Rtu, Mode::Ascii] {
                if let Verdict::Answer(registers) = mode.judge(unit, &request, &bytes) {
                    prop_assert_eq!(registers.len(), usize::from(count));
                }
            }
        }
    }
}
