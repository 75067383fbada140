//! The gRPC interface of Ladewart, generated from `ladewart/v1/*.proto`.
//!
//! In: the `.proto` files. Out: messages, clients, servers ([`v1`]) and the descriptor set for reflection and
//! JSON ([`DESCRIPTORS`]). Nothing here is written by hand; documentation lives in the `.proto` files.

/// Package `ladewart.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("ladewart.v1");
}

/// The encoded `FileDescriptorSet` of everything in [`v1`], imports included.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ladewart.v1.bin"));
