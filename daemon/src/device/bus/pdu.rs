//! What is asked and answered, whatever the line: MODBUS Application Protocol V1.1b3.
//!
//! In: a [`Request`]. Out: its bytes, and registers or a [`Mismatch`] from an answer's. Invariant: an answer counts only
//! if its function, its length and what it repeats of the request are those of this request. Pure.

use crate::device::definition::Function;

/// Most registers in one request (§6.3, §6.4).
pub const MOST_READ: u16 = 125;
/// Most registers in one write (§6.12).
pub const MOST_WRITTEN: usize = 123;

/// One request to one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Functions 3 and 4.
    Read {
        /// Which of the two.
        function: Function,
        /// First register, from 0.
        start: u16,
        /// 1 to [`MOST_READ`].
        count: u16,
    },
    /// Function 6: one holding register.
    WriteOne {
        /// Register, from 0.
        register: u16,
        /// Its new value.
        value: u16,
    },
    /// Function 16: several holding registers.
    WriteMany {
        /// First register, from 0.
        start: u16,
        /// 1 to [`MOST_WRITTEN`] values.
        values: Vec<u16>,
    },
}

/// Why bytes are not the answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The device says no: a whole, valid answer.
    #[error("{what} (exception {0})", what = meaning(*_0))]
    Exception(u8),
    /// Another device's.
    #[error("unit {0} answers")]
    Unit(u8),
    /// Another function's.
    #[error("function {asked} was asked, {answered} is answered")]
    Function {
        /// Of the request.
        asked: u8,
        /// Of the answer.
        answered: u8,
    },
    /// Another number of registers or bytes.
    #[error("{got} of {wanted} bytes of data")]
    Length {
        /// As the request has it.
        wanted: usize,
        /// As the answer has it.
        got: usize,
    },
    /// A write's confirmation that repeats something else.
    #[error("a write is confirmed that was not asked for")]
    Echo,
    /// The check sum does not fit.
    #[error("the check sum is wrong")]
    Checksum,
    /// Not a frame.
    #[error("not a frame: {0}")]
    Frame(&'static str),
}

impl Request {
    /// Function code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Read { function: Function::Holding, .. } => 3,
            Self::Read { function: Function::Input, .. } => 4,
            Self::WriteOne { .. } => 6,
            Self::WriteMany { .. } => 16,
        }
    }

    /// First register.
    #[must_use]
    pub const fn start(&self) -> u16 {
        match self {
            Self::Read { start, .. } | Self::WriteMany { start, .. } => *start,
            Self::WriteOne { register, .. } => *register,
        }
    }

    /// Whether it changes something in the device.
    #[must_use]
    pub const fn writes(&self) -> bool {
        !matches!(self, Self::Read { .. })
    }

    /// Appends function code and data.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.code());
        out.extend(self.start().to_be_bytes());
        match self {
            Self::Read { count, .. } => out.extend(count.to_be_bytes()),
            Self::WriteOne { value, .. } => out.extend(value.to_be_bytes()),
            Self::WriteMany { values, .. } => {
                let count = u16::try_from(values.len().min(MOST_WRITTEN)).unwrap_or(0);
                out.extend(count.to_be_bytes());
                out.push((count * 2).to_le_bytes()[0]);
                out.extend(values.iter().take(MOST_WRITTEN).flat_map(|v| v.to_be_bytes()));
            }
        }
    }

    /// Bytes of function code and data in the answer that is expected.
    #[must_use]
    pub const fn answer_length(&self) -> usize {
        match self {
            Self::Read { count, .. } => 2 + 2 * *count as usize,
            Self::WriteOne { .. } | Self::WriteMany { .. } => 5,
        }
    }

    /// Registers of an answer, from its function code on; none for a write.
    pub fn parse(&self, pdu: &[u8]) -> Result<Vec<u16>, Mismatch> {
        let (&answered, data) = pdu.split_first().ok_or(Mismatch::Frame("it is empty"))?;
        if answered == self.code() | 0x80 {
            return match data {
                [code] => Err(Mismatch::Exception(*code)),
                _ => Err(Mismatch::Length { wanted: 1, got: data.len() }),
            };
        }
        if answered != self.code() {
            return Err(Mismatch::Function { asked: self.code(), answered });
        }
        match self {
            Self::Read { count, .. } => {
                let wanted = 2 * usize::from(*count);
                match data.split_first() {
                    Some((told, registers)) if usize::from(*told) == wanted && registers.len() == wanted => {
                        Ok(registers.chunks_exact(2).map(|r| u16::from_be_bytes([r[0], r[1]])).collect())
                    }
                    Some((told, registers)) => {
                        Err(Mismatch::Length { wanted, got: registers.len().min(usize::from(*told)) })
                    }
                    None => Err(Mismatch::Length { wanted, got: 0 }),
                }
            }
            Self::WriteOne { .. } | Self::WriteMany { .. } => {
                let mut asked = Vec::with_capacity(8);
                self.encode(&mut asked);
                if data.len() != 4 {
                    return Err(Mismatch::Length { wanted: 4, got: data.len() });
                }
                if data == &asked[1..5] { Ok(Vec::new()) } else { Err(Mismatch::Echo) }
            }
        }
    }
}

/// MODBUS Application Protocol V1.1b3 §7, as what to look at.
#[must_use]
pub const fn meaning(exception: u8) -> &'static str {
    match exception {
        1 => "the device does not know this function",
        2 => "the device has no such registers",
        3 => "the device does not take this number or value",
        4 => "the device reports its own failure",
        5 => "the device needs longer",
        6 => "the device is busy",
        8 => "the device reports a memory error",
        10 => "the Modbus gateway has no way to the unit",
        11 => "no device answers behind the Modbus gateway",
        _ => "the device refuses",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Request = Request::Read { function: Function::Input, start: 0x0102, count: 2 };

    #[test]
    fn requests_are_the_bytes_of_the_specification() {
        let bytes = |request: &Request| {
            let mut out = Vec::new();
            request.encode(&mut out);
            out
        };
        assert_eq!(bytes(&READ), [4, 1, 2, 0, 2]);
        assert_eq!(bytes(&Request::WriteOne { register: 1, value: 3 }), [6, 0, 1, 0, 3]);
        assert_eq!(
            bytes(&Request::WriteMany { start: 1, values: vec![0x000A, 0x0102] }),
            [16, 0, 1, 0, 2, 4, 0, 10, 1, 2]
        );
    }

    #[test]
    fn only_the_answer_to_this_request_counts() {
        assert_eq!(READ.parse(&[4, 4, 0, 6, 0, 5]), Ok(vec![6, 5]));
        for (answer, expected) in [
            (&[4, 2, 0, 6][..], Mismatch::Length { wanted: 4, got: 2 }),
            (&[4, 6, 0, 6, 0, 5, 0, 4], Mismatch::Length { wanted: 4, got: 6 }),
            (&[4, 4, 0, 6], Mismatch::Length { wanted: 4, got: 2 }),
            (&[3, 4, 0, 6, 0, 5], Mismatch::Function { asked: 4, answered: 3 }),
            (&[0x84, 2], Mismatch::Exception(2)),
            (&[0x84, 2, 2], Mismatch::Length { wanted: 1, got: 2 }),
            (&[], Mismatch::Frame("it is empty")),
        ] {
            assert_eq!(READ.parse(answer), Err(expected), "{answer:?}");
        }
        let write = Request::WriteOne { register: 1, value: 3 };
        assert_eq!(write.parse(&[6, 0, 1, 0, 3]), Ok(vec![]));
        assert_eq!(write.parse(&[6, 0, 1, 0, 4]), Err(Mismatch::Echo));
        let write = Request::WriteMany { start: 1, values: vec![1, 2] };
        assert_eq!(write.parse(&[16, 0, 1, 0, 2]), Ok(vec![]));
        assert_eq!(write.parse(&[16, 0, 1, 0, 1]), Err(Mismatch::Echo));
    }
}
