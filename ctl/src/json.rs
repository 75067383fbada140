//! Messages as JSON: the canonical form of Protocol Buffers, with the names of the `.proto` files, 64-bit
//! integers as numbers, and fields that hold their default.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

use crate::failure::Failure;

static POOL: LazyLock<Result<DescriptorPool, String>> =
    LazyLock::new(|| DescriptorPool::decode(ladewart_proto::DESCRIPTORS).map_err(|error| error.to_string()));

const OPTIONS: SerializeOptions = SerializeOptions::new()
    .use_proto_field_name(true)
    .stringify_64_bit_integers(false)
    .skip_default_fields(false);

/// One line.
pub(crate) fn line(name: &str, message: &impl Message) -> Result<String, Failure> {
    let mut text = Vec::new();
    write(name, message, &mut serde_json::Serializer::new(&mut text))?;
    finish(text)
}

/// Many lines, for people.
pub(crate) fn pretty(name: &str, message: &impl Message) -> Result<String, Failure> {
    let mut text = Vec::new();
    write(name, message, &mut serde_json::Serializer::pretty(&mut text))?;
    finish(text)
}

fn wrong(error: impl std::fmt::Display) -> Failure {
    Failure::Wrong(format!("the daemon's answer cannot be written as JSON: {error}"))
}

fn write<F: serde_json::ser::Formatter>(
    name: &str,
    message: &impl Message,
    json: &mut serde_json::Serializer<&mut Vec<u8>, F>,
) -> Result<(), Failure> {
    let pool = POOL.as_ref().map_err(wrong)?;
    let full = format!("ladewart.v1.{name}");
    let descriptor = pool.get_message_by_name(&full).ok_or_else(|| wrong(format!("{full} is not known")))?;
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).map_err(wrong)?;
    message.serialize_with_options(json, &OPTIONS).map_err(wrong)
}

/// A message from its JSON form; the error says where it is wrong.
pub(crate) fn read<M: Message + Default>(name: &str, text: &str) -> Result<M, String> {
    let pool = POOL.as_ref().map_err(Clone::clone)?;
    let full = format!("ladewart.v1.{name}");
    let descriptor = pool.get_message_by_name(&full).ok_or_else(|| format!("{full} is not known"))?;
    let mut json = serde_json::Deserializer::from_str(text);
    let message = DynamicMessage::deserialize(descriptor, &mut json).map_err(|error| error.to_string())?;
    json.end().map_err(|error| error.to_string())?;
    M::decode(message.encode_to_vec().as_slice()).map_err(|error| error.to_string())
}

fn finish(text: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(text).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use ladewart_proto::v1;
    use prost_types::Timestamp;
    use serde_json::json;

    use super::*;

    #[test]
    fn names_numbers_enums_times_and_defaults_are_as_documented() {
        let limit = v1::Limit {
            id: "dso-1".into(),
            watts: i64::MAX,
            stage: v1::LimitStage::Effective.into(),
            valid_from: Some(Timestamp { seconds: 0, nanos: 500_000_000 }),
            measured_watts: Some(0),
            ..Default::default()
        };
        let value: serde_json::Value = serde_json::from_str(&line("Limit", &limit).unwrap()).unwrap();
        assert_eq!(value["watts"], json!(i64::MAX), "a number, not a text");
        assert_eq!(value["stage"], "LIMIT_STAGE_EFFECTIVE");
        assert_eq!(value["valid_from"], "1970-01-01T00:00:00.500Z");
        assert_eq!(value["reason"], "", "defaults are there");
        assert_eq!(value["measured_watts"], 0);
        assert!(value.get("valid_until").is_none(), "what is absent is absent");
        assert!(value.get("validFrom").is_none());
    }

    #[test]
    fn lists_without_members_are_there() {
        assert_eq!(line("ListEvsesResponse", &v1::ListEvsesResponse::default()).unwrap(), r#"{"evses":[]}"#);
    }

    #[test]
    fn a_time_out_of_range_is_an_error_and_no_panic() {
        let entry =
            v1::JournalEntry { at: Some(Timestamp { seconds: i64::MAX, nanos: -1 }), ..Default::default() };
        assert!(matches!(line("JournalEntry", &entry), Err(Failure::Wrong(_))));
    }
}
