//! TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256 (0xC023; RFC 5289 §3.1, RFC 5246 §6.2.3.2) for gateways that have no GCM.
//!
//! In: records of TLS 1.2. Out: records, or the one error that rustls answers with the alert bad_record_mac.
//! Invariant: how long a record takes, and what is touched in memory, depends on its length alone, not on its padding
//! nor on where its MAC stands (Lucky Thirteen, CVE-2013-0169). `open` has that part.
//!
//! rustls knows AEAD suites alone. Its key block is cut into a key of 32 bytes and an IV of 16 for each direction:
//! exactly the MAC's and the cipher's key, in the order in which the RFC has them.

mod open;

use aes::{
    Aes128, Block,
    cipher::{BlockCipherDecrypt as _, BlockCipherEncrypt as _, KeyInit as _},
};
use rustls::{
    CipherSuite, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion, SignatureScheme,
    SupportedCipherSuite, Tls12CipherSuite,
    crypto::{
        CipherSuiteCommon, GetRandomFailed, KeyExchangeAlgorithm,
        cipher::{
            AeadKey, InboundOpaqueMessage, InboundPlainMessage, KeyBlockShape, MessageDecrypter,
            MessageEncrypter, OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload,
            Tls12AeadAlgorithm, UnsupportedOperationError, make_tls12_aad,
        },
        ring,
    },
};

use self::open::Mac;

const BLOCK: usize = 16;
const TAG: usize = 32;

/// Longest content of a record (RFC 5246 §6.2.1).
const LONGEST: usize = 1 << 14;

/// The suite.
pub(super) static SUITE: SupportedCipherSuite = SupportedCipherSuite::Tls12(&TLS12);

static TLS12: Tls12CipherSuite = Tls12CipherSuite {
    common: CipherSuiteCommon {
        suite: CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256,
        hash_provider: GCM.common.hash_provider,
        confidentiality_limit: 1 << 24,
    },
    prf_provider: GCM.prf_provider,
    kx: KeyExchangeAlgorithm::ECDHE,
    sign: &[
        SignatureScheme::ECDSA_NISTP521_SHA512,
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ECDSA_NISTP256_SHA256,
    ],
    aead_alg: &Cbc,
};

/// The suite with the same hash and PRF, which ring makes.
static GCM: &Tls12CipherSuite = match ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 {
    SupportedCipherSuite::Tls12(suite) => suite,
    SupportedCipherSuite::Tls13(_) => panic!("not a suite of TLS 1.2"),
};

struct Cbc;

impl Tls12AeadAlgorithm for Cbc {
    fn encrypter(&self, mac: AeadKey, key: &[u8], _: &[u8]) -> Box<dyn MessageEncrypter> {
        Box::new(Records::new(mac.as_ref(), key))
    }

    fn decrypter(&self, mac: AeadKey, key: &[u8]) -> Box<dyn MessageDecrypter> {
        Box::new(Records::new(mac.as_ref(), key))
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        KeyBlockShape { enc_key_len: TAG, fixed_iv_len: BLOCK, explicit_nonce_len: 0 }
    }

    fn extract_keys(
        &self,
        _: AeadKey,
        _: &[u8],
        _: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

/// One direction of a session.
struct Records {
    mac: Mac,
    /// `None` for a key of another length, which rustls never gives: nothing can be sent or read then.
    cipher: Option<Aes128>,
}

impl Records {
    fn new(mac: &[u8], key: &[u8]) -> Self {
        Self { mac: Mac::new(mac), cipher: Aes128::new_from_slice(key).ok() }
    }

    /// What stands in a record's payload: IV and blocks of content, MAC and padding.
    fn seal(&self, header: &[u8; 13], content: &[u8], iv: [u8; BLOCK]) -> Option<Vec<u8>> {
        let cipher = self.cipher.as_ref()?;
        let mut payload = iv.to_vec();
        payload.extend_from_slice(content);
        payload.extend_from_slice(&self.mac.of(header, content));
        let padding = BLOCK - 1 - (content.len() + TAG) % BLOCK;
        payload.resize(payload.len() + padding + 1, u8::try_from(padding).ok()?);
        let mut before = Block::from(iv);
        for block in payload[BLOCK..].chunks_exact_mut(BLOCK) {
            block.iter_mut().zip(before).for_each(|(byte, last)| *byte ^= last);
            let block = <&mut Block>::try_from(block).ok()?;
            cipher.encrypt_block(block);
            before = *block;
        }
        Some(payload)
    }

    /// Decrypts a payload in place and leaves its content at [`BLOCK`], of the length that is returned. `header`
    /// makes what the MAC begins with of that length.
    fn open(&self, header: &[u8; 11], payload: &mut [u8]) -> Option<usize> {
        let cipher = self.cipher.as_ref()?;
        // What anybody on the line can see: whole blocks, room for the MAC and a byte of padding.
        if !payload.len().is_multiple_of(BLOCK) || payload.len() < 2 * BLOCK + TAG {
            return None;
        }
        let mut before = Block::try_from(&payload[..BLOCK]).ok()?;
        for block in payload[BLOCK..].chunks_exact_mut(BLOCK) {
            let block = <&mut Block>::try_from(block).ok()?;
            let last = std::mem::replace(&mut before, *block);
            cipher.decrypt_block(block);
            block.iter_mut().zip(last).for_each(|(byte, last)| *byte ^= last);
        }
        self.mac.content(header, &payload[BLOCK..])
    }
}

/// What the MAC covers before the content (RFC 5246 §6.2.3.1), without the length.
fn header(seq: u64, typ: ContentType, version: ProtocolVersion) -> [u8; 11] {
    let mut header = [0; 11];
    header.copy_from_slice(&make_tls12_aad(seq, typ, version, 0)[..11]);
    header
}

impl MessageEncrypter for Records {
    fn encrypt(&mut self, msg: OutboundPlainMessage<'_>, seq: u64) -> Result<OutboundOpaqueMessage, Error> {
        let mut iv = [0; BLOCK];
        ring::default_provider()
            .secure_random
            .fill(&mut iv)
            .map_err(|GetRandomFailed| Error::FailedToGetRandomBytes)?;
        let content = msg.payload.to_vec();
        let header = make_tls12_aad(seq, msg.typ, msg.version, content.len());
        let sealed = self.seal(&header, &content, iv).ok_or(Error::EncryptError)?;
        let mut payload = PrefixedPayload::with_capacity(sealed.len());
        payload.extend_from_slice(&sealed);
        Ok(OutboundOpaqueMessage::new(msg.typ, msg.version, payload))
    }

    fn encrypted_payload_len(&self, content: usize) -> usize {
        BLOCK + (content + TAG) / BLOCK * BLOCK + BLOCK
    }
}

impl MessageDecrypter for Records {
    fn decrypt<'a>(
        &mut self,
        mut msg: InboundOpaqueMessage<'a>,
        seq: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let header = header(seq, msg.typ, msg.version);
        let length = self.open(&header, &mut msg.payload).ok_or(Error::DecryptError)?;
        if length > LONGEST {
            return Err(Error::PeerSentOversizedRecord);
        }
        Ok(msg.into_plain_message_range(BLOCK..BLOCK + length))
    }
}

/// For the fuzzer: opens a payload as the first application data of a session with keys of zeros.
#[doc(hidden)]
#[must_use]
pub fn open_any(payload: &[u8]) -> Option<usize> {
    let header = header(0, ContentType::ApplicationData, ProtocolVersion::TLSv1_2);
    Records::new(&[0; TAG], &[0; BLOCK]).open(&header, &mut payload.to_vec())
}

/// For the fuzzer: whether a content of at most 16 KiB comes back as it was, and does not once a bit is turned.
#[doc(hidden)]
#[must_use]
pub fn there_and_back(content: &[u8], bit: usize) -> bool {
    let records = Records::new(&[1; TAG], &[2; BLOCK]);
    let aad = make_tls12_aad(7, ContentType::ApplicationData, ProtocolVersion::TLSv1_2, content.len());
    let header = header(7, ContentType::ApplicationData, ProtocolVersion::TLSv1_2);
    let Some(mut sealed) = records.seal(&aad, content, [3; BLOCK]) else {
        return false;
    };
    let mut other = sealed.clone();
    let at = bit % (8 * other.len());
    other[at / 8] ^= 1 << (at % 8);
    let whole =
        records.open(&header, &mut sealed) == Some(content.len()) && sealed[BLOCK..].starts_with(content);
    whole && records.open(&header, &mut other).is_none()
}

#[cfg(test)]
mod tests;
