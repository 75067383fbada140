//! SML over the optical head (BSI TR-03109-1 appendix IV): bytes → telegrams.
//!
//! In: bytes as they come, cut anywhere. Out: telegrams. Invariant: a telegram with a wrong check sum never counts; what
//! comes before a telegram costs that one at most, the next is found.

use sml_rs::{
    parser::{
        common::Value,
        complete::{MessageBody, parse},
    },
    transport::Decoder,
    util::ArrayBuf,
};

use super::telegram::{Obis, Telegram};

/// Longest telegram.
const LONGEST: usize = 8192;

/// Finds telegrams in a stream.
pub struct Sml {
    decoder: Decoder<ArrayBuf<LONGEST>>,
    /// Telegrams that were broken.
    pub broken: u64,
}

impl Default for Sml {
    fn default() -> Self {
        Self { decoder: Decoder::new(), broken: 0 }
    }
}

impl std::fmt::Debug for Sml {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sml").field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl Sml {
    /// Takes bytes in; returns the telegrams that became whole.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Telegram> {
        let mut telegrams = Vec::new();
        for byte in bytes {
            match self.decoder.push_byte(*byte) {
                Ok(None) => {}
                Ok(Some(message)) => match telegram(message) {
                    Some(telegram) => telegrams.push(telegram),
                    None => self.broken += 1,
                },
                Err(_) => self.broken += 1,
            }
        }
        telegrams
    }
}

fn telegram(message: &[u8]) -> Option<Telegram> {
    let file = parse(message).ok()?;
    let mut values = Vec::new();
    for message in &file.messages {
        let MessageBody::GetListResponse(list) = &message.message_body else { continue };
        for entry in &list.val_list {
            // 1-0:C.D.E*255; some meters write another A or F.
            let [_, 0, c, d, e, _] = *entry.obj_name else { continue };
            let Some(unit) = entry.unit else { continue };
            let Some(number) = number(&entry.value) else { continue };
            // DLMS units (IEC 62056-62 table 4): W, Wh, A, V, Hz.
            if matches!(unit, 27 | 30 | 33 | 35 | 44) {
                let scaler = i32::from(entry.scaler.unwrap_or(0).clamp(-9, 9));
                values.push((Obis(c, d, e), number * 10_f64.powi(scaler)));
            }
        }
    }
    (!values.is_empty()).then_some(Telegram { values })
}

fn number(value: &Value<'_>) -> Option<f64> {
    Some(match *value {
        Value::I8(n) => f64::from(n),
        Value::I16(n) => f64::from(n),
        Value::I32(n) => f64::from(n),
        Value::I64(n) => n as f64,
        Value::U8(n) => f64::from(n),
        Value::U16(n) => f64::from(n),
        Value::U32(n) => f64::from(n),
        Value::U64(n) => n as f64,
        Value::Bool(_) | Value::Bytes(_) | Value::List(_) => return None,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use sml_rs::{transport::encode, util::VecBuf};

    use super::*;

    /// One value as SML writes it: unit, scaler, a signed number of four bytes.
    fn entry(obis: [u8; 3], unit: u8, scaler: i8, number: i32) -> Vec<u8> {
        let mut bytes = vec![0x77, 0x07, 1, 0, obis[0], obis[1], obis[2], 0xFF, 0x01, 0x01, 0x62, unit];
        bytes.extend([0x52, scaler.cast_unsigned(), 0x55]);
        bytes.extend(number.to_be_bytes());
        bytes.push(0x01);
        bytes
    }

    /// A whole transmission with one list of values; written from the specification, byte by byte.
    pub(in crate::meter::push) fn transmission(entries: &[([u8; 3], u8, i8, i32)]) -> Vec<u8> {
        let mut body = vec![0x77, 0x01, 0x03, 0x0A, 0x0B, 0x01, 0x01];
        body.push(0x70 | u8::try_from(entries.len()).unwrap());
        for (obis, unit, scaler, number) in entries {
            body.extend(entry(*obis, *unit, *scaler, *number));
        }
        body.extend([0x01, 0x01]);
        let mut message = vec![0x76, 0x05, 0, 0, 0, 1, 0x62, 0x00, 0x62, 0x00, 0x72, 0x63, 0x07, 0x01];
        message.extend(body);
        let crc = x25(&message);
        message.extend([0x63, crc.to_le_bytes()[0], crc.to_le_bytes()[1], 0x00]);
        encode::<VecBuf>(&message).unwrap()
    }

    /// CRC-16/X-25.
    fn x25(bytes: &[u8]) -> u16 {
        !bytes.iter().fold(0xFFFF_u16, |crc, byte| {
            (0..8).fold(
                crc ^ u16::from(*byte),
                |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x8408 } else { crc >> 1 },
            )
        })
    }

    #[test]
    fn telegrams_are_found_after_a_cut_one_and_noise() {
        let good = transmission(&[([1, 8, 0], 30, -1, 12_345), ([16, 7, 0], 27, 0, -250)]);
        let mut stream = good[20..].to_vec();
        stream.extend([0x55, 0x1B, 0x00]);
        stream.extend(&good);
        let mut broken = good.clone();
        broken[30] ^= 1;
        stream.extend(&broken);
        stream.extend(&good);
        let mut sml = Sml::default();
        let mut telegrams = Vec::new();
        for piece in stream.chunks(7) {
            telegrams.extend(sml.push(piece));
        }
        assert_eq!(telegrams.len(), 2, "{sml:?}");
        assert_eq!(telegrams[0].get(Obis(1, 8, 0)), Some(1234.5));
        assert_eq!(telegrams[1].get(Obis(16, 7, 0)), Some(-250.0));
        assert!(sml.broken > 0);
    }
}
