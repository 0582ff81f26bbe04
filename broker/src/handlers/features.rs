//! UpdateFeatures (57) 0 to 2: the levels of features that are finalized (KIP-584), for kafka-features.sh.
//!
//! - All updates or none. A level outside what is supported, or a lower one without being asked for as a downgrade, is
//!   INVALID_UPDATE_VERSION. Version 0 says `allow_downgrade`, later ones an upgrade type: 1 upgrade, 2 safe and
//!   3 unsafe downgrade. `validate_only` changes nothing.
//! - From version 2 on there are no results per feature, as in Kafka: the whole request succeeds or fails.

use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::update_features_response::UpdatableFeatureResult;
use kafka_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use super::{Context, Reply, text};
use crate::error::{Error, Kind, Result};
use crate::features::Feature;
use crate::security::acl::{Operation, Resource};

const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;
const UNSAFE_DOWNGRADE: i8 = 3;

/// Answers UpdateFeatures.
pub(crate) fn update_features(context: &Context, version: i16, request: UpdateFeaturesRequest) -> Reply {
    let checked: Vec<Result<(&'static Feature, i16)>> =
        request.feature_updates.iter().map(|asked| check(context, version, asked)).collect();
    let denied = context.authorize(Operation::Alter, Resource::Cluster).err();
    let failure = denied.or_else(|| checked.iter().find_map(|one| one.as_ref().err().cloned()));
    let new = checked.into_iter().collect::<Result<Vec<_>>>().unwrap_or_default();
    let change = failure.is_none() && !request.validate_only && !new.is_empty();
    let stored = change.then(|| context.broker.features().set(new));
    let names: Vec<_> = request.feature_updates.into_iter().map(|asked| asked.feature).collect();
    Reply::later(async move {
        let done = match (failure, stored) {
            (Some(error), _) => Err(error),
            (None, Some(stored)) => stored.await,
            (None, None) => Ok(()),
        };
        let mut response = UpdateFeaturesResponse::default().with_error_message(None);
        match done {
            Ok(()) if version <= 1 => {
                response.results =
                    names.into_iter().map(|name| UpdatableFeatureResult::default().with_feature(name)).collect();
            }
            Ok(()) => {}
            Err(error) => {
                response.error_code = error.kind.code();
                response.error_message = Some(text(&error.message));
            }
        }
        Reply::message(version, &response)
    })
}

fn check(context: &Context, version: i16, asked: &FeatureUpdateKey) -> Result<(&'static Feature, i16)> {
    let may_lower = match (version, asked.upgrade_type) {
        (0, _) => asked.allow_downgrade,
        (_, UPGRADE) => false,
        (_, SAFE_DOWNGRADE | UNSAFE_DOWNGRADE) => true,
        (_, other) => return Err(Error::new(Kind::InvalidUpdateVersion, format!("there is no upgrade type {other}"))),
    };
    let feature = context.broker.features().check(&asked.feature, asked.max_version_level, may_lower)?;
    Ok((feature, asked.max_version_level))
}
