//! The MAC of a record whose content has a secret length.
//!
//! What is decrypted ends in padding whose length is in its last byte; a wrong padding and a wrong MAC must look alike,
//! also in time. So the padding is judged over 256 bytes whatever it says; the hash runs over as many blocks as the
//! longest content would need, and the state behind the right one is kept by a mask; the MAC is gathered out of every
//! place where it could stand. Nothing branches on or indexes by what was decrypted.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Sha256, block_api::compress256};
use subtle::{
    Choice, ConditionallySelectable as _, ConstantTimeEq as _, ConstantTimeGreater as _,
    ConstantTimeLess as _,
};

use super::TAG;

/// Bytes that SHA-256 takes at a time.
const WIDTH: usize = 64;

/// The most that padding and its length byte can take.
const PADDING: usize = 256;

/// What the MAC covers before the content.
const HEADER: usize = 13;
const HEADER_LENGTH: u32 = 13;

/// FIPS 180-4 §5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// HMAC-SHA-256 with one key.
pub(super) struct Mac {
    whole: Hmac<Sha256>,
    /// SHA-256 behind the key's block, inside and outside (RFC 2104 §2).
    inner: [u32; 8],
    outer: [u32; 8],
}

impl Mac {
    /// `key` has at most 64 bytes; what is longer is no key of TLS and left out.
    pub(super) fn new(key: &[u8]) -> Self {
        let key = &key[..key.len().min(WIDTH)];
        let behind = |pad: u8| {
            let mut block = [pad; WIDTH];
            block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            let mut state = INITIAL;
            compress256(&mut state, &[block]);
            state
        };
        let whole = match Hmac::new_from_slice(key) {
            Ok(whole) => whole,
            Err(never) => panic!("HMAC takes keys of any length: {never}"),
        };
        Self { whole, inner: behind(0x36), outer: behind(0x5c) }
    }

    /// The MAC of a content whose length is no secret.
    pub(super) fn of(&self, header: &[u8; HEADER], content: &[u8]) -> [u8; TAG] {
        let mut mac = self.whole.clone();
        mac.update(header);
        mac.update(content);
        mac.finalize().into_bytes().into()
    }

    /// The length of the content in `plain`, which is content, MAC and padding; `None` if MAC or padding is wrong.
    /// `plain` has at least 48 bytes and at most those of a record.
    pub(super) fn content(&self, header: &[u8; HEADER - 2], plain: &[u8]) -> Option<usize> {
        let most = u32::try_from(plain.len().checked_sub(TAG + 1)?).ok()?;
        let padding = u32::from(*plain.last()?);

        // Room for it, and every byte of it says how long it is.
        let mut good = !padding.ct_gt(&most);
        for (i, byte) in (0_u32..).zip(plain.iter().rev().take(PADDING)) {
            let within = !i.ct_gt(&padding);
            good &= !within | u32::from(*byte).ct_eq(&padding);
        }
        // A wrong one counts as none, so that the MAC is computed all the same.
        let length = most - u32::conditional_select(&0, &padding, good);

        let expected = self.masked(header, plain, length, most);
        good &= gather(plain, length).ct_eq(&expected);
        bool::from(good).then_some(length as usize)
    }

    /// The MAC of the first `length` bytes, a secret not above `most`.
    fn masked(&self, header: &[u8; HEADER - 2], plain: &[u8], length: u32, most: u32) -> [u8; TAG] {
        // The length goes into the header as it is: it is data, nothing is decided by it.
        let [.., high, low] = length.to_be_bytes();
        let mut message = header.to_vec();
        message.extend_from_slice(&[high, low]);
        message.extend_from_slice(&plain[..most as usize]);

        let end = length + HEADER_LENGTH;
        // Behind the end come 0x80 and eight bytes of length, in bits; the key's block counts.
        let last = (end + 8) >> 6;
        let bits = (u64::from(end) + WIDTH as u64) << 3;
        let (blocks, unmasked) = span(message.len());

        let mut state = self.inner;
        for block in message[..unmasked * WIDTH].as_chunks::<WIDTH>().0 {
            compress256(&mut state, &[*block]);
        }
        let mut digest = [0_u32; 8];
        for index in unmasked..blocks {
            let number = u32::try_from(index).unwrap_or(u32::MAX);
            let is_last = number.ct_eq(&last);
            let mut block = [0_u8; WIDTH];
            for (i, byte) in block.iter_mut().enumerate() {
                let at = index * WIDTH + i;
                let data = message.get(at).copied().unwrap_or(0);
                let at = u32::try_from(at).unwrap_or(u32::MAX);
                *byte = u8::conditional_select(&0, &data, at.ct_lt(&end));
                byte.conditional_assign(&0x80, at.ct_eq(&end));
            }
            for (byte, length) in block[WIDTH - 8..].iter_mut().zip(bits.to_be_bytes()) {
                *byte |= u8::conditional_select(&0, &length, is_last);
            }
            compress256(&mut state, &[block]);
            for (kept, word) in digest.iter_mut().zip(state) {
                kept.conditional_assign(&word, is_last);
            }
        }

        let mut block = [0_u8; WIDTH];
        write(&mut block[..TAG], &digest);
        block[TAG] = 0x80;
        let bits = ((WIDTH + TAG) as u64) << 3;
        block[WIDTH - 8..].copy_from_slice(&bits.to_be_bytes());
        let mut state = self.outer;
        compress256(&mut state, &[block]);
        let mut mac = [0; TAG];
        write(&mut mac, &state);
        mac
    }
}

/// For a message of at most `longest` bytes: blocks that are hashed, and how many of them surely hold data alone.
fn span(longest: usize) -> (usize, usize) {
    let blocks = (longest + 9).div_ceil(WIDTH);
    let unmasked = longest.saturating_sub(PADDING - 1) / WIDTH;
    (blocks, unmasked)
}

fn write(bytes: &mut [u8], words: &[u32; 8]) {
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
}

/// The MAC that begins at `length`, a secret: of each place where it could begin, all or nothing is taken.
fn gather(plain: &[u8], length: u32) -> [u8; TAG] {
    let first = plain.len().saturating_sub(TAG + PADDING);
    let mut mac = [0; TAG];
    for (start, window) in plain.windows(TAG).enumerate().skip(first) {
        let here: Choice = u32::try_from(start).unwrap_or(u32::MAX).ct_eq(&length);
        for (kept, byte) in mac.iter_mut().zip(window) {
            kept.conditional_assign(byte, here);
        }
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_masked_mac_is_the_mac_at_every_length() {
        let mac = Mac::new(&[7; TAG]);
        let plain: Vec<u8> = (0..=250).cycle().take(600).collect();
        for most in [0_u32, 1, 41, 42, 43, 50, 51, 52, 115, 255, 256, 320, 567] {
            for length in most.saturating_sub(255)..=most {
                let [.., high, low] = length.to_be_bytes();
                let header = [&[9; HEADER - 2][..], &[high, low]].concat();
                let expected = mac.of(&header.try_into().unwrap(), &plain[..length as usize]);
                assert_eq!(
                    mac.masked(&[9; HEADER - 2], &plain, length, most),
                    expected,
                    "{length} of {most}"
                );
            }
        }
    }

    #[test]
    fn a_mac_is_gathered_from_each_of_its_places() {
        let plain: Vec<u8> = (0..=240).cycle().take(400).collect();
        let most = plain.len() - TAG - 1;
        for length in most - 255..=most {
            let mac = gather(&plain, u32::try_from(length).unwrap());
            assert_eq!(mac, plain[length..length + TAG]);
        }
    }

    /// The work done depends on nothing but the length of the record: the spans are functions of it.
    #[test]
    fn every_end_lies_in_the_masked_blocks() {
        for longest in 13..2000_usize {
            let (blocks, unmasked) = span(longest);
            for end in longest.saturating_sub(255).max(13)..=longest {
                assert!(end >= unmasked * WIDTH, "{end} of {longest}");
                assert!((end + 8) >> 6 < blocks, "{end} of {longest}");
            }
        }
    }
}
