//! DescribeUserScramCredentials (50) and AlterUserScramCredentials (51), version 0: users who log in by SCRAM (KIP-554).
//!
//! - What is described are mechanisms and iterations, nothing of the credential itself.
//! - Altering: clients send the salted password; StoredKey and ServerKey are made of it and it is forgotten. 4,096 to
//!   16,384 iterations. Each user has an outcome, and may be named once in a request (as in Kafka 4.3). What was decided for
//!   all users is one commit, durable when the answer comes.
//! - Users of the configuration are set again at each start.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use kafka_protocol::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResult,
};
use kafka_protocol::messages::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse, DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
};

use super::topics::finished;
use super::{Context, Reply, text};
use crate::error::{Error, Kind, Result};
use crate::security::acl::{Operation, Resource};
use crate::security::scram::ScramMechanism;
use crate::security::{SecurityRecord, SecurityState};

/// Answers DescribeUserScramCredentials.
pub(crate) fn describe(context: &Context, version: i16, request: DescribeUserScramCredentialsRequest) -> Reply {
    let response = DescribeUserScramCredentialsResponse::default();
    if let Err(error) = context.authorize(Operation::Describe, Resource::Cluster) {
        let refused = response.with_error_code(error.kind.code()).with_error_message(Some(text(&error.message)));
        return Reply::message(version, &refused);
    }
    let users = context.broker.security().read(SecurityState::users);
    let asked = request.users.unwrap_or_default();
    let mut names: Vec<String> = asked.iter().map(|user| user.name.to_string()).collect();
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<String> = names.iter().filter(|name| !seen.insert((*name).clone())).cloned().collect();
    names = if names.is_empty() { users.keys().cloned().collect() } else { seen.into_iter().collect() };
    let results = names.into_iter().map(|name| {
        let result = DescribeUserScramCredentialsResult::default().with_user(text(&name));
        let refused = |kind: Kind, message: String| {
            result.clone().with_error_code(kind.code()).with_error_message(Some(text(&message)))
        };
        if twice.contains(&name) {
            let message =
                format!("Cannot describe SCRAM credentials for the same user twice in a single request: {name}");
            return refused(Kind::DuplicateResource, message);
        }
        let Some(credentials) = users.get(&name) else {
            let message = format!("Attempt to describe a user credential that does not exist: {name}");
            return refused(Kind::ResourceNotFound, message);
        };
        let infos = credentials.iter().map(|(mechanism, iterations)| {
            let iterations = i32::try_from(*iterations).unwrap_or(i32::MAX);
            CredentialInfo::default().with_mechanism(mechanism.code()).with_iterations(iterations)
        });
        result.with_credential_infos(infos.collect())
    });
    let results = results.collect();
    Reply::message(version, &response.with_results(results))
}

/// One change of a user.
enum Edit {
    Set { mechanism: i8, iterations: i32, salt: Vec<u8>, salted_password: Vec<u8> },
    Remove { mechanism: i8 },
}

impl Edit {
    fn mechanism(&self) -> i8 {
        match self {
            Edit::Set { mechanism, .. } | Edit::Remove { mechanism } => *mechanism,
        }
    }
}

/// Answers AlterUserScramCredentials.
pub(crate) fn alter(context: &Context, version: i16, request: AlterUserScramCredentialsRequest) -> Reply {
    let mut edits: BTreeMap<String, Vec<Edit>> = BTreeMap::new();
    for deletion in request.deletions {
        let edit = Edit::Remove { mechanism: deletion.mechanism };
        edits.entry(deletion.name.to_string()).or_default().push(edit);
    }
    for upsertion in request.upsertions {
        let edit = Edit::Set {
            mechanism: upsertion.mechanism,
            iterations: upsertion.iterations,
            salt: upsertion.salt.to_vec(),
            salted_password: upsertion.salted_password.to_vec(),
        };
        edits.entry(upsertion.name.to_string()).or_default().push(edit);
    }
    let context = context.clone();
    finished(async move {
        let users: Vec<String> = edits.keys().cloned().collect();
        let changed = match context.authorize(Operation::Alter, Resource::Cluster) {
            Ok(()) => change(&context, edits).await,
            Err(error) => Err(error),
        };
        let results = changed.unwrap_or_else(|error| vec![Err(error); users.len()]);
        let results = users.into_iter().zip(results).map(|(user, result)| {
            let answer = AlterUserScramCredentialsResult::default().with_user(text(&user));
            match result {
                Ok(()) => answer.with_error_message(None),
                Err(error) => answer.with_error_code(error.kind.code()).with_error_message(Some(text(&error.message))),
            }
        });
        Reply::message(version, &AlterUserScramCredentialsResponse::default().with_results(results.collect()))
    })
}

async fn change(context: &Context, edits: BTreeMap<String, Vec<Edit>>) -> Result<Vec<Result<()>>> {
    let names: Vec<String> = edits.keys().cloned().collect();
    let decided = context.broker.security().change(|state| {
        let mut records = Vec::new();
        let results = edits.iter().map(|(user, edits)| decide(state, user, edits).map(|own| records.push(own)));
        let results: Vec<Result<()>> = results.collect();
        Ok::<_, Error>((records, results))
    });
    let results = decided.await?;
    for (user, _) in names.iter().zip(&results).filter(|(_, result)| result.is_ok()) {
        context.changed(&format!("SCRAM credentials of user {user}"));
    }
    Ok(results)
}

fn decide(state: &SecurityState, user: &str, edits: &[Edit]) -> Result<SecurityRecord> {
    let [edit] = edits else {
        let message = "A user credential cannot be altered twice in the same request";
        return Err(Error::new(Kind::DuplicateResource, message));
    };
    let mechanism = ScramMechanism::from_code(edit.mechanism())
        .ok_or_else(|| Error::new(Kind::UnsupportedSaslMechanism, "Unknown SCRAM mechanism"))?;
    match edit {
        Edit::Remove { .. } => state.remove_credential(user, mechanism),
        Edit::Set { iterations, salt, salted_password, .. } => {
            state.set_credential(user, mechanism, (salt, *iterations, salted_password))
        }
    }
}
