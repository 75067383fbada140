use super::*;

/// A ClientHello with these suites, a session id of five bytes and an extension.
pub(super) fn hello(suites: &[[u8; 2]]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([0xaa; 32]);
    body.extend([5, 1, 2, 3, 4, 5]);
    body.extend(u16::try_from(2 * suites.len()).unwrap().to_be_bytes());
    body.extend(suites.as_flattened());
    body.extend([1, 0, 0, 4, 0, 23, 0, 0]);
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1], &length[1..], &body].concat()
}

#[test]
fn the_scsv_is_left_out_wherever_it_stands() {
    let (a, b, scsv) = ([0xc0, 0x2b], [0xc0, 0x2c], [0x00, 0xff]);
    for suites in [[scsv, a, b], [a, scsv, b], [a, b, scsv]] {
        assert_eq!(without(&hello(&suites)).unwrap(), hello(&[a, b]));
    }
    // What follows in the same flight stays.
    let flight = [hello(&[a, scsv]), b"more".to_vec()].concat();
    assert_eq!(without(&flight).unwrap(), [hello(&[a]), b"more".to_vec()].concat());
}

#[test]
fn what_has_none_stays_as_it_is() {
    let (a, b) = ([0xc0, 0x00], [0xff, 0x2c]);
    // The two bytes across two suites are no SCSV.
    assert_eq!(without(&hello(&[a, b])), None);
    let good = hello(&[a, [0x00, 0xff]]);
    for length in 0..good.len() {
        assert_eq!(without(&good[..length]), None, "{length} bytes");
    }
    let mut server = good.clone();
    server[0] = 2;
    assert_eq!(without(&server), None);
    assert_eq!(without(&[]), None);
    let mut odd = good;
    odd[4 + 2 + 32 + 6 + 1] = 3;
    assert_eq!(without(&odd), None);
}

#[test]
fn the_hash_is_the_one_without() {
    let hello = hello(&[[0xc0, 0x2b], [0x00, 0xff]]);
    for hash in [&SHA256, &SHA384] {
        let mut ours = hash.start();
        ours.update(&hello);
        let mut fork = ours.fork();
        fork.update(&hello);
        let shorter = without(&hello).unwrap();
        assert_eq!(ours.fork_finish().as_ref(), hash.0.hash(&shorter).as_ref());
        // Only at the beginning: a second one is the peer's business.
        assert_eq!(fork.finish().as_ref(), hash.0.hash(&[shorter, hello.clone()].concat()).as_ref());
    }
}
