//! ApiVersions (18), versions 0 to 4: what this broker serves.
//!
//! - The response header is version 0 whatever the body's version, so that a client can read it without knowing.
//! - A version that is not served is answered in version 0 with code 35 and one entry, ApiVersions itself; the client
//!   asks again. Newest Java clients start that way (KIP-511, KIP-1242).
//! - Features (features.rs): the metadata level of Kafka 4.0 is finalized; kafka-ui and the Java tools read the broker's version
//!   from it. Features whose lowest level is 0 are left out below version 4, where old Java clients refuse them
//!   (KAFKA-17492).

use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use kafka_protocol::protocol::StrBytes;

use super::{APIS, Api, Context, Reply};
use crate::error::Kind;
use crate::features::{FEATURES, Feature};

/// Answers ApiVersions.
pub(crate) fn api_versions(context: &Context, version: i16, request: ApiVersionsRequest) -> Reply {
    let named = is_name(&request.client_software_name) && is_name(&request.client_software_version);
    if version >= 3 && !named {
        let refused = ApiVersionsResponse::default().with_error_code(Kind::InvalidRequest.code());
        return Reply::message(version, &refused);
    }
    let mut response = ApiVersionsResponse::default().with_api_keys(APIS.iter().map(range).collect());
    if version >= 3 {
        let shown = FEATURES.iter().filter(|feature| feature.min > 0 || version >= 4);
        let (epoch, levels) = context.broker.features().finalized();
        response = response
            .with_supported_features(shown.map(supported).collect())
            .with_finalized_features_epoch(epoch)
            .with_finalized_features(levels.into_iter().map(finalized).collect());
    }
    Reply::message(version, &response)
}

/// The answer to a version that is not served.
pub(super) fn unsupported_version() -> Reply {
    let own = APIS.iter().filter(|api| api.key == kafka_protocol::messages::ApiKey::ApiVersions);
    let response = ApiVersionsResponse::default()
        .with_error_code(Kind::UnsupportedVersion.code())
        .with_api_keys(own.map(range).collect());
    Reply::message(0, &response)
}

fn range(api: &Api) -> ApiVersion {
    ApiVersion::default().with_api_key(api.key as i16).with_min_version(api.advertised_min).with_max_version(api.max)
}

fn supported(feature: &Feature) -> SupportedFeatureKey {
    SupportedFeatureKey::default()
        .with_name(StrBytes::from_static_str(feature.name))
        .with_min_version(feature.min)
        .with_max_version(feature.max)
}

/// Kafka gives brokers' levels as ranges of one.
fn finalized((name, level): (&'static str, i16)) -> FinalizedFeatureKey {
    FinalizedFeatureKey::default()
        .with_name(StrBytes::from_static_str(name))
        .with_min_version_level(level)
        .with_max_version_level(level)
}

/// Letters, digits, dots and dashes, with a letter or digit at both ends (KIP-511).
fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let ends =
        bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes.last().is_some_and(u8::is_ascii_alphanumeric);
    ends && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}
