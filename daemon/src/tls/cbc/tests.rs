use super::*;

const SEQ: u64 = 3;

fn records() -> Records {
    Records::new(&[0x0b; TAG], &[0x16; BLOCK])
}

fn aad(length: usize) -> [u8; 13] {
    make_tls12_aad(SEQ, ContentType::ApplicationData, ProtocolVersion::TLSv1_2, length)
}

fn opened(payload: &[u8]) -> Option<Vec<u8>> {
    let header = header(SEQ, ContentType::ApplicationData, ProtocolVersion::TLSv1_2);
    let mut payload = payload.to_vec();
    let length = records().open(&header, &mut payload)?;
    Some(payload[BLOCK..BLOCK + length].to_vec())
}

/// What a peer may send: any plaintext of whole blocks, encrypted rightly.
fn encrypted(plain: &[u8]) -> Vec<u8> {
    let cipher = records().cipher.unwrap();
    let mut payload = vec![5; BLOCK];
    let mut before = Block::from([5; BLOCK]);
    for block in plain.chunks_exact(BLOCK) {
        let mut block = Block::try_from(block).unwrap();
        block.iter_mut().zip(before).for_each(|(byte, last)| *byte ^= last);
        cipher.encrypt_block(&mut block);
        payload.extend_from_slice(&block);
        before = block;
    }
    payload
}

/// Content, its MAC, and this many bytes of padding before the length byte.
fn padded(content: &[u8], padding: u8) -> Vec<u8> {
    let mut plain = content.to_vec();
    plain.extend_from_slice(&records().mac.of(&aad(content.len()), content));
    plain.resize(plain.len() + usize::from(padding) + 1, padding);
    plain
}

#[test]
fn every_length_comes_back() {
    for length in (0..200).chain([4096, 16_383, 16_384]) {
        let content: Vec<u8> = (0..=252).cycle().take(length).collect();
        let sealed = records().seal(&aad(length), &content, [1; BLOCK]).unwrap();
        assert_eq!(sealed.len(), records().encrypted_payload_len(length));
        assert_eq!(opened(&sealed).unwrap(), content);
    }
}

#[test]
fn each_allowed_padding_is_taken() {
    let mut taken = 0;
    for padding in 0..=255 {
        for length in 0..BLOCK {
            let plain = padded(&vec![7; length], padding);
            if plain.len().is_multiple_of(BLOCK) {
                assert_eq!(opened(&encrypted(&plain)).unwrap(), vec![7; length], "padding {padding}");
                taken += 1;
            }
        }
    }
    assert_eq!(taken, 256);
}

#[test]
fn a_padding_with_one_wrong_byte_is_refused() {
    for padding in [0x1f_u8, 0x7f, 0xef, 0xff] {
        let good = padded(&[7; 16], padding);
        assert!(good.len().is_multiple_of(BLOCK) && opened(&encrypted(&good)).is_some());
        let first = good.len() - usize::from(padding) - 1;
        for at in first..good.len() {
            for bit in [1, 0x80] {
                let mut bad = good.clone();
                bad[at] ^= bit;
                assert_eq!(opened(&encrypted(&bad)), None, "padding {padding}, byte {at}");
            }
        }
    }
}

#[test]
fn a_padding_beyond_the_record_is_refused() {
    // 48 bytes: room for no content, the MAC and 16 bytes of padding.
    for padding in 0..=255 {
        let mut plain = padded(&[], 15);
        plain[32..].fill(padding);
        assert_eq!(opened(&encrypted(&plain)).is_some(), padding == 15, "padding {padding}");
    }
}

#[test]
fn a_mac_of_another_record_is_refused() {
    let sealed = records().seal(&aad(5), b"hello", [1; BLOCK]).unwrap();
    for (seq, typ) in [(SEQ + 1, ContentType::ApplicationData), (SEQ, ContentType::Handshake)] {
        let header = header(seq, typ, ProtocolVersion::TLSv1_2);
        assert_eq!(records().open(&header, &mut sealed.clone()), None);
    }
}

#[test]
fn each_turned_bit_and_each_wrong_length_is_refused() {
    let sealed = records().seal(&aad(20), &[9; 20], [1; BLOCK]).unwrap();
    for at in 0..sealed.len() * 8 {
        let mut bad = sealed.clone();
        bad[at / 8] ^= 1 << (at % 8);
        assert_eq!(opened(&bad), None, "bit {at}");
    }
    for length in 0..sealed.len() {
        assert_eq!(opened(&sealed[..length]), None, "{length} bytes");
    }
}

#[test]
fn too_much_content_is_told_apart() {
    let content = vec![0; LONGEST + 1];
    let mut sealed = records().seal(&aad(content.len()), &content, [1; BLOCK]).unwrap();
    let msg = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, &mut sealed);
    assert_eq!(records().decrypt(msg, SEQ).err(), Some(Error::PeerSentOversizedRecord));
}

#[test]
fn what_the_fuzzer_asks_holds_here() {
    for length in [0, 1, 15, 16, 17, 255, 1000] {
        assert!(there_and_back(&vec![1; length], 77 * length));
    }
    assert_eq!(open_any(&[]), None);
    assert_eq!(open_any(&[0; 64]), None);
}
