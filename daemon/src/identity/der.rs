//! The little of DER (X.690) that a certificate request is written with.

/// Universal tags, and the context's as they are used here.
pub(crate) mod tag {
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
    pub(crate) const UTF8_STRING: u8 = 0x0c;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;
    pub(crate) const PRINTABLE_STRING: u8 = 0x13;
    /// GeneralName (RFC 5280 §4.2.1.6).
    pub(crate) const DNS_NAME: u8 = 0x82;
    /// GeneralName (RFC 5280 §4.2.1.6).
    pub(crate) const IP_ADDRESS: u8 = 0x87;
    /// `[0]`, constructed.
    pub(crate) const FIRST: u8 = 0xa0;
}

/// One value of these parts.
pub(crate) fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut der = vec![tag];
    match u8::try_from(length) {
        Ok(short @ 0..0x80) => der.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let long = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            // A length has eight bytes at most.
            der.push(0x80 | u8::try_from(long.len()).unwrap_or(0));
            der.extend_from_slice(long);
        }
    }
    for part in parts {
        der.extend_from_slice(part);
    }
    der
}

/// An object identifier of its content.
pub(crate) fn oid(content: &[u8]) -> Vec<u8> {
    value(tag::OBJECT_IDENTIFIER, &[content])
}

/// A bit string of whole bytes.
pub(crate) fn bits(bytes: &[u8]) -> Vec<u8> {
    value(tag::BIT_STRING, &[&[0], bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_takes_as_few_bytes_as_it_needs() {
        for (length, head) in [
            (0, &[4, 0][..]),
            (127, &[4, 127]),
            (128, &[4, 0x81, 128]),
            (255, &[4, 0x81, 255]),
            (256, &[4, 0x82, 1, 0]),
            (70_000, &[4, 0x83, 1, 0x11, 0x70]),
        ] {
            let der = value(tag::OCTET_STRING, &[&vec![7; length]]);
            assert_eq!((&der[..head.len()], der.len()), (head, head.len() + length));
        }
    }
}
