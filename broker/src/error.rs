//! One error type. Its [`Kind`] says what happened, what the caller should do next, and which Kafka error code the
//! client is sent. This file is the only map between the three.

use std::fmt;

/// What the caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The same call may succeed later.
    Retry,
    /// The call is wrong and will never succeed as it is.
    Refuse,
    /// The broker can no longer keep its promises; the process must end and be started again.
    Stop,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $act:ident;)*) => {
        /// What happened. Named after the Kafka error where there is one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind { $($(#[$doc])* $name,)* }

        impl Kind {
            /// Every kind, for tests that walk the table.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// The error code of the Kafka protocol.
            pub fn code(self) -> i16 {
                match self { $(Kind::$name => $code,)* }
            }

            /// What the caller should do next.
            pub fn act(self) -> Act {
                match self { $(Kind::$name => Act::$act,)* }
            }
        }
    };
}

kinds! {
    /// The store failed or was poisoned by an earlier failure.
    Storage = 56, Stop;
    /// The disk is nearly full and takes no records in. Kafka's code for a full disk, after which its clients try again.
    DiskFull = 56, Retry;
    /// The lake has records that the log let go, and does not answer. Kafka's code for a failed disk, after which its clients
    /// try again without a word.
    ColdLogAway = 56, Retry;
    /// The disk does not give stored records back as they were written. Kafka's code for records that fail their checksum, with
    /// which its consumers name partition and offset.
    Damaged = 2, Refuse;
    /// The broker's own configuration is wrong.
    Config = -1, Refuse;
    /// A state that the code rules out.
    Bug = -1, Stop;
    /// Offset below the log start or above the log end.
    OffsetOutOfRange = 1, Refuse;
    /// A batch fails its CRC, its lengths or its magic.
    CorruptMessage = 2, Retry;
    /// No such topic or partition.
    UnknownTopicOrPartition = 3, Retry;
    /// A batch larger than `max.message.bytes`.
    MessageTooLarge = 10, Refuse;
    /// Offset commit with metadata above `offset.metadata.max.bytes`.
    OffsetMetadataTooLarge = 12, Refuse;
    /// The group's state is being loaded.
    CoordinatorLoadInProgress = 14, Retry;
    /// The group coordinator cannot serve now.
    CoordinatorNotAvailable = 15, Retry;
    /// There was not enough of something in time.
    RequestTimedOut = 7, Retry;
    /// Another broker coordinates the group.
    NotCoordinator = 16, Retry;
    /// A topic name that Kafka does not allow.
    InvalidTopic = 17, Refuse;
    /// A batch larger than `segment.bytes`.
    RecordListTooLarge = 18, Refuse;
    /// `acks` is not -1, 0 or 1.
    InvalidRequiredAcks = 21, Refuse;
    /// A generation that is not the group's.
    IllegalGeneration = 22, Refuse;
    /// Protocol types or names of the members do not meet.
    InconsistentGroupProtocol = 23, Refuse;
    /// An empty or overlong group id.
    InvalidGroupId = 24, Refuse;
    /// The group does not know the member.
    UnknownMemberId = 25, Refuse;
    /// Session timeout outside the broker's bounds.
    InvalidSessionTimeout = 26, Refuse;
    /// The group is rebalancing: join again.
    RebalanceInProgress = 27, Retry;
    /// A record's timestamp is outside the bounds of the topic.
    InvalidTimestamp = 32, Refuse;
    /// An API version that is not served.
    UnsupportedVersion = 35, Refuse;
    /// The client is not allowed to do this to the topic.
    TopicAuthorizationFailed = 29, Refuse;
    /// The client is not allowed to do this to the group.
    GroupAuthorizationFailed = 30, Refuse;
    /// The client is not allowed to do this to the cluster.
    ClusterAuthorizationFailed = 31, Refuse;
    /// A mechanism of logging in that is not offered.
    UnsupportedSaslMechanism = 33, Refuse;
    /// A step of logging in at the wrong time.
    IllegalSaslState = 34, Refuse;
    /// The topic exists.
    TopicAlreadyExists = 36, Refuse;
    /// A partition count that is not possible.
    InvalidPartitions = 37, Refuse;
    /// A replication factor above the number of brokers.
    InvalidReplicationFactor = 38, Refuse;
    /// A replica assignment that names absent brokers or leaves gaps.
    InvalidReplicaAssignment = 39, Refuse;
    /// An unknown setting, or a value out of its range.
    InvalidConfig = 40, Refuse;
    /// A request that contradicts itself.
    InvalidRequest = 42, Refuse;
    /// The message format is too old for this request or topic.
    UnsupportedForMessageFormat = 43, Refuse;
    /// A topic policy forbids it.
    PolicyViolation = 44, Refuse;
    /// A gap in an idempotent producer's sequence numbers.
    OutOfOrderSequence = 45, Refuse;
    /// A batch that was already appended, too long ago to know its offset.
    DuplicateSequence = 46, Refuse;
    /// An epoch older than the producer's current one.
    InvalidProducerEpoch = 47, Refuse;
    /// The transaction is in another state.
    InvalidTxnState = 48, Refuse;
    /// The producer id does not belong to the transactional id.
    InvalidProducerIdMapping = 49, Refuse;
    /// The transaction timeout is above `transaction.max.timeout.ms`.
    InvalidTransactionTimeout = 50, Refuse;
    /// The producer's last transaction is still being ended.
    ConcurrentTransactions = 51, Retry;
    /// A marker of a coordinator that was replaced.
    TransactionCoordinatorFenced = 52, Refuse;
    /// The client is not allowed to do this with the transactional id, or there is none.
    TransactionalIdAuthorizationFailed = 53, Refuse;
    /// No authorizer is configured.
    SecurityDisabled = 54, Refuse;
    /// Another part of the request failed, so this one was not tried.
    OperationNotAttempted = 55, Refuse;
    /// A log directory that does not exist.
    LogDirNotFound = 57, Refuse;
    /// A login failed.
    SaslAuthenticationFailed = 58, Refuse;
    /// Delegation tokens are not made: there is no secret for them.
    DelegationTokenAuthDisabled = 61, Refuse;
    /// Delegation tokens are for clients that have shown who they are.
    DelegationTokenRequestNotAllowed = 64, Refuse;
    /// The client is not allowed to make delegation tokens for the user.
    DelegationTokenAuthorizationFailed = 65, Refuse;
    /// A principal of a type that cannot be here.
    InvalidPrincipalType = 67, Refuse;
    /// The group still has members.
    NonEmptyGroup = 68, Refuse;
    /// No such group.
    GroupIdNotFound = 69, Refuse;
    /// No fetch session is kept; the client starts over without one.
    FetchSessionIdNotFound = 70, Retry;
    /// Fetch session's epochs must follow one another.
    InvalidFetchSessionEpoch = 71, Retry;
    /// `delete.topic.enable` is false, or somebody needs the topic.
    TopicDeletionDisabled = 73, Refuse;
    /// The request's leader epoch is older than the partition's.
    FencedLeaderEpoch = 74, Retry;
    /// The request's leader epoch is newer than the partition's.
    UnknownLeaderEpoch = 75, Retry;
    /// A codec that this version of the request may not carry.
    UnsupportedCompressionType = 76, Refuse;
    /// The member must join again with the id it was given.
    MemberIdRequired = 79, Retry;
    /// The group has as many members as it may.
    GroupMaxSizeReached = 81, Refuse;
    /// Another member took over the static id.
    FencedInstanceId = 82, Refuse;
    /// The partition has the leader that it should have.
    ElectionNotNeeded = 84, Refuse;
    /// No reassignment of the partition is under way.
    NoReassignmentInProgress = 85, Refuse;
    /// The group is subscribed to the topic.
    GroupSubscribedToTopic = 86, Refuse;
    /// Records that break a rule of the topic or of the format.
    InvalidRecord = 87, Refuse;
    /// Offsets of an open transaction hide the committed ones.
    UnstableOffsetCommit = 88, Retry;
    /// A limit is used up; the answer says when to ask again.
    ThrottlingQuotaExceeded = 89, Retry;
    /// A newer producer has the transactional id.
    ProducerFenced = 90, Refuse;
    /// A feature cannot be set to this level.
    InvalidUpdateVersion = 95, Refuse;
    /// No producer has this transactional id.
    TransactionalIdNotFound = 105, Refuse;
    /// The transaction cannot go on; abort it.
    TransactionAbortable = 120, Refuse;
    /// A pattern that is none.
    InvalidRegularExpression = 128, Refuse;
    /// Something to be changed is not there.
    ResourceNotFound = 91, Refuse;
    /// The same thing is named twice.
    DuplicateResource = 92, Refuse;
    /// A credential that is too weak or malformed.
    UnacceptableCredential = 93, Refuse;
    /// No topic has this id.
    UnknownTopicId = 100, Retry;
    /// A fetch session names topics by id or by name, not by both.
    FetchSessionTopicIdError = 106, Retry;
    /// The member's epoch is not the known one: it gives up all partitions and joins again.
    FencedMemberEpoch = 110, Refuse;
    /// Another member has the static id and has not left.
    UnreleasedInstanceId = 111, Refuse;
    /// An assignor that is not here.
    UnsupportedAssignor = 112, Refuse;
    /// The member's epoch is older or newer than the known one: it asks again after a heartbeat.
    StaleMemberEpoch = 113, Retry;
    /// A broker was asked for what controllers answer.
    MismatchedEndpointType = 114, Refuse;
    /// Neither brokers nor controllers were asked for.
    UnsupportedEndpointType = 115, Refuse;
    /// The topic's id changed.
    InconsistentTopicId = 103, Retry;
}

/// What went wrong, and in words what to do next.
#[derive(Clone, Debug)]
pub struct Error {
    /// Decides the caller's next act and the code a client is sent.
    pub kind: Kind,
    /// For people: lower case, no full stop, with the values that matter.
    pub message: String,
}

impl Error {
    /// An error of `kind`, explained.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A failure of the store, which stops the broker.
    pub fn storage(message: impl Into<String>) -> Self {
        Self::new(Kind::Storage, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
