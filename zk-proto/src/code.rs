//! Operation and error codes.

use std::fmt;

macro_rules! op_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// The operation of a request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i32)]
        #[non_exhaustive]
        pub enum OpCode { $($(#[$doc])* $name = $code,)* }

        impl OpCode {
            /// The operation with this code, if there is one.
            pub fn from_i32(code: i32) -> Option<OpCode> {
                match code { $($code => Some(OpCode::$name),)* _ => None }
            }

            /// The operation's name as Apache writes it.
            pub fn name(self) -> &'static str {
                match self { $(OpCode::$name => $text,)* }
            }
        }
    };
}

op_codes! {
    /// Creates a node, answers its path.
    Create = 1, "create";
    /// Deletes a node.
    Delete = 2, "delete";
    /// Stat of a node; arms a data watch, also on a missing node.
    Exists = 3, "exists";
    /// Data and Stat.
    GetData = 4, "getData";
    /// Replaces the data.
    SetData = 5, "setData";
    /// ACL and Stat.
    GetAcl = 6, "getACL";
    /// Replaces the ACL.
    SetAcl = 7, "setACL";
    /// Names of the children.
    GetChildren = 8, "getChildren";
    /// Flushes the pipe between the connected server and the leader.
    Sync = 9, "sync";
    /// Keeps the session alive.
    Ping = 11, "ping";
    /// Names of the children and Stat.
    GetChildren2 = 12, "getChildren2";
    /// Version check; legal inside a multi only.
    Check = 13, "check";
    /// All or nothing group of writes.
    Multi = 14, "multi";
    /// Create that answers path and Stat.
    Create2 = 15, "create2";
    /// Changes the membership of the ensemble.
    Reconfig = 16, "reconfig";
    /// Asks whether a watch is armed.
    CheckWatches = 17, "checkWatches";
    /// Removes watches of this connection.
    RemoveWatches = 18, "removeWatches";
    /// Creates a container node.
    CreateContainer = 19, "createContainer";
    /// Deletes an empty container or expired TTL node.
    DeleteContainer = 20, "deleteContainer";
    /// Creates a node with a time to live.
    CreateTtl = 21, "createTTL";
    /// Group of independent reads.
    MultiRead = 22, "multiRead";
    /// Adds an identity to the connection.
    Auth = 100, "auth";
    /// Re-arms one-shot watches after a reconnect.
    SetWatches = 101, "setWatches";
    /// One step of a SASL exchange.
    Sasl = 102, "sasl";
    /// Paths of the session's ephemeral nodes.
    GetEphemerals = 103, "getEphemerals";
    /// Number of all descendants.
    GetAllChildrenNumber = 104, "getAllChildrenNumber";
    /// Re-arms all kinds of watches after a reconnect.
    SetWatches2 = 105, "setWatches2";
    /// Arms a persistent watch.
    AddWatch = 106, "addWatch";
    /// Identities of the connection.
    WhoAmI = 107, "whoAmI";
    /// Internal: opens a session.
    CreateSession = -10, "createSession";
    /// Ends the session.
    CloseSession = -11, "closeSession";
}

impl fmt::Display for OpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The error code of a reply. Codes that this version does not know stay what they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(pub i32);

macro_rules! error_codes {
    ($($(#[$doc:meta])* $konst:ident = $code:literal, $text:literal;)*) => {
        impl ErrorCode {
            $($(#[$doc])* pub const $konst: ErrorCode = ErrorCode($code);)*

            /// The code's name as Apache writes it; `None` for an unknown one.
            pub fn name(self) -> Option<&'static str> {
                match self.0 { $($code => Some($text),)* _ => None }
            }
        }
    };
}

error_codes! {
    /// Success.
    OK = 0, "Ok";
    /// Unspecified server fault.
    SYSTEM_ERROR = -1, "SystemError";
    /// In a failed multi: not tried, because an earlier operation failed.
    RUNTIME_INCONSISTENCY = -2, "RuntimeInconsistency";
    /// Never sent.
    DATA_INCONSISTENCY = -3, "DataInconsistency";
    /// Client-local: the connection was lost.
    CONNECTION_LOSS = -4, "ConnectionLoss";
    /// The request could not be decoded.
    MARSHALLING_ERROR = -5, "MarshallingError";
    /// The operation is unknown or switched off.
    UNIMPLEMENTED = -6, "Unimplemented";
    /// Client-local: the operation took too long.
    OPERATION_TIMEOUT = -7, "OperationTimeout";
    /// Invalid path, flags or other argument.
    BAD_ARGUMENTS = -8, "BadArguments";
    /// The session is unknown.
    UNKNOWN_SESSION = -12, "UnknownSession";
    /// Reconfig: no quorum of the new configuration is connected and in sync.
    NEW_CONFIG_NO_QUORUM = -13, "NewConfigNoQuorum";
    /// Reconfig: another one is under way.
    RECONFIG_IN_PROGRESS = -14, "ReconfigInProgress";
    /// Marks the range of the API errors.
    API_ERROR = -100, "APIError";
    /// The node does not exist.
    NO_NODE = -101, "NoNode";
    /// Not authorized.
    NO_AUTH = -102, "NoAuth";
    /// The expected version is not the current one.
    BAD_VERSION = -103, "BadVersion";
    /// Ephemeral nodes cannot have children.
    NO_CHILDREN_FOR_EPHEMERALS = -108, "NoChildrenForEphemerals";
    /// The node exists already.
    NODE_EXISTS = -110, "NodeExists";
    /// The node has children.
    NOT_EMPTY = -111, "NotEmpty";
    /// The session has expired.
    SESSION_EXPIRED = -112, "SessionExpired";
    /// Client-local.
    INVALID_CALLBACK = -113, "InvalidCallback";
    /// The ACL is invalid.
    INVALID_ACL = -114, "InvalidACL";
    /// Authentication failed.
    AUTH_FAILED = -115, "AuthFailed";
    /// The session has moved to another connection.
    SESSION_MOVED = -118, "SessionMoved";
    /// Not possible on a read-only server.
    NOT_READ_ONLY = -119, "NotReadOnly";
    /// A local session cannot own ephemerals here.
    EPHEMERAL_ON_LOCAL_SESSION = -120, "EphemeralOnLocalSession";
    /// No such watch on this connection.
    NO_WATCHER = -121, "NoWatcher";
    /// Client-local: no reply in time.
    REQUEST_TIMEOUT = -122, "RequestTimeout";
    /// `reconfigEnabled` is false.
    RECONFIG_DISABLED = -123, "ReconfigDisabled";
    /// The server demands an authentication that the connection lacks.
    SESSION_CLOSED_REQUIRE_SASL_AUTH = -124, "SessionClosedRequireSaslAuth";
    /// A quota would be exceeded.
    QUOTA_EXCEEDED = -125, "QuotaExceeded";
    /// Not executed because the server is overloaded.
    THROTTLED_OP = -127, "ThrottledOp";
}

impl ErrorCode {
    /// `Ok(())` for 0, else the code as the error.
    pub fn ok(self) -> Result<(), ErrorCode> {
        if self == ErrorCode::OK { Ok(()) } else { Err(self) }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl std::error::Error for ErrorCode {}
