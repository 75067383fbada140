//! AWS-LC's curves by their C interface; the one file with `unsafe`. Each object is freed where it was made.
#![allow(unsafe_code)]

use std::{ffi::c_int, ptr};

use anyhow::{Context as _, ensure};
use aws_lc_sys as c;

/// A curve by AWS-LC's number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Curve(pub(crate) c_int);

pub(crate) const P256: Curve = Curve(c::NID_brainpoolP256r1);
pub(crate) const P384: Curve = Curve(c::NID_brainpoolP384r1);
pub(crate) const P512: Curve = Curve(c::NID_brainpoolP512r1);

/// A key pair, or a public key alone.
pub(crate) struct Key(*mut c::EC_KEY);

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: made by `new`, owned by this value alone.
        unsafe { c::EC_KEY_free(self.0) }
    }
}

struct Point(*mut c::EC_POINT);

impl Drop for Point {
    fn drop(&mut self) {
        // SAFETY: made in `Key::point`, owned by this value alone.
        unsafe { c::EC_POINT_free(self.0) }
    }
}

impl Key {
    fn new(curve: Curve) -> anyhow::Result<Self> {
        // SAFETY: returns a new key or null.
        let key = unsafe { c::EC_KEY_new_by_curve_name(curve.0) };
        ensure!(!key.is_null(), "AWS-LC does not know curve {}", curve.0);
        Ok(Self(key))
    }

    pub(crate) fn generate(curve: Curve) -> anyhow::Result<Self> {
        let key = Self::new(curve)?;
        // SAFETY: a valid key with its group set.
        ensure!(unsafe { c::EC_KEY_generate_key(key.0) } == 1, "no key was made");
        Ok(key)
    }

    /// `None` if AWS-LC does not take the point.
    pub(crate) fn public(curve: Curve, point: &[u8]) -> anyhow::Result<Option<Self>> {
        let key = Self::new(curve)?;
        let Some(point) = key.point(point)? else {
            return Ok(None);
        };
        // SAFETY: both are of the same group; the point is copied.
        Ok((unsafe { c::EC_KEY_set_public_key(key.0, point.0) } == 1).then_some(key))
    }

    fn point(&self, bytes: &[u8]) -> anyhow::Result<Option<Point>> {
        // SAFETY: the group lives as long as the key; the point is freed by its wrapper.
        let (point, taken) = unsafe {
            let group = c::EC_KEY_get0_group(self.0);
            let point = c::EC_POINT_new(group);
            ensure!(!point.is_null(), "out of memory");
            let point = Point(point);
            let taken = c::EC_POINT_oct2point(group, point.0, bytes.as_ptr(), bytes.len(), ptr::null_mut());
            (point, taken)
        };
        Ok((taken == 1).then_some(point))
    }

    /// The uncompressed point.
    pub(crate) fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        let form = c::point_conversion_form_t::POINT_CONVERSION_UNCOMPRESSED;
        let mut bytes = vec![0; 129];
        // SAFETY: the group and the point live as long as the key; at most `bytes.len()` bytes are written.
        let length = unsafe {
            let (group, point) = (c::EC_KEY_get0_group(self.0), c::EC_KEY_get0_public_key(self.0));
            c::EC_POINT_point2oct(group, point, form, bytes.as_mut_ptr(), bytes.len(), ptr::null_mut())
        };
        ensure!(length > 0, "no point");
        bytes.truncate(length);
        Ok(bytes)
    }

    /// The x coordinate of the common point; `None` if the peer's is refused.
    pub(crate) fn agree(&self, peer: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(point) = self.point(peer)? else {
            return Ok(None);
        };
        let mut common = vec![0; (peer.len() - 1) / 2];
        // SAFETY: at most `common.len()` bytes are written; no KDF.
        let length =
            unsafe { c::ECDH_compute_key(common.as_mut_ptr().cast(), common.len(), point.0, self.0, None) };
        Ok((usize::try_from(length).ok() == Some(common.len())).then_some(common))
    }

    /// A signature in DER.
    pub(crate) fn sign(&self, digest: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut signature = vec![0; 160];
        let mut length = 0;
        // SAFETY: the longest signature on 512 bits has 139 bytes.
        let done = unsafe {
            ensure!(c::ECDSA_size(self.0) <= signature.len(), "no room");
            c::ECDSA_sign(0, digest.as_ptr(), digest.len(), signature.as_mut_ptr(), &raw mut length, self.0)
        };
        ensure!(done == 1, "not signed");
        signature.truncate(usize::try_from(length).context("length")?);
        Ok(signature)
    }

    pub(crate) fn verify(&self, digest: &[u8], signature: &[u8]) -> bool {
        // SAFETY: reads the two slices within their lengths.
        unsafe {
            c::ECDSA_verify(0, digest.as_ptr(), digest.len(), signature.as_ptr(), signature.len(), self.0)
                == 1
        }
    }
}
