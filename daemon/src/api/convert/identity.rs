//! Identities.

use ladewart_proto::v1;
use tonic::Status;

use super::{invalid, uplink::certificate};
use crate::identity::{Algorithm, Entry, StoreError};

/// What can be shown of an identity.
pub(in crate::api) fn identity(entry: &Entry) -> v1::Identity {
    v1::Identity {
        name: entry.name.clone(),
        certificate: entry.certificate.as_ref().map(certificate),
        chain_length: u32::try_from(entry.chain).unwrap_or(u32::MAX),
        selected: entry.selected,
        problem: entry.problem.clone(),
    }
}

/// An algorithm by its number on the wire.
pub(in crate::api) fn algorithm(number: i32) -> Result<Algorithm, Status> {
    match v1::KeyAlgorithm::try_from(number) {
        Ok(v1::KeyAlgorithm::Unspecified | v1::KeyAlgorithm::EcdsaP256) => Ok(Algorithm::EcdsaP256),
        Ok(v1::KeyAlgorithm::EcdsaP384) => Ok(Algorithm::EcdsaP384),
        Ok(v1::KeyAlgorithm::EcdsaBrainpoolP256r1) => Ok(Algorithm::EcdsaBrainpoolP256r1),
        Ok(v1::KeyAlgorithm::EcdsaBrainpoolP384r1) => Ok(Algorithm::EcdsaBrainpoolP384r1),
        Ok(v1::KeyAlgorithm::EcdsaBrainpoolP512r1) => Ok(Algorithm::EcdsaBrainpoolP512r1),
        Err(_) => Err(invalid(
            "algorithm",
            format!(
                "{number} is not known; use ECDSA_P256, ECDSA_P384 or ECDSA_BRAINPOOL_P256R1, P384R1, P512R1"
            ),
        )),
    }
}

/// What a refusal means to the caller.
pub(in crate::api) fn identity_error(error: &StoreError) -> Status {
    let text = error.to_string();
    match error {
        StoreError::Invalid { .. } => Status::invalid_argument(text),
        StoreError::Unknown(_) => Status::not_found(text),
        StoreError::Exists(_) => Status::already_exists(text),
        StoreError::NotNow(_) => Status::failed_precondition(text),
        StoreError::Disk { .. } => Status::unavailable(text),
    }
}
