//! The states of a delivery. `docs/state-machine.md` draws them; a test holds the two together.

use serde::{Deserialize, Serialize};

/// Where a delivery is. What the store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DeliveryState {
    /// Handed to the bus (or about to be, by its outbox record) and not anchored elsewhere.
    Queued = 0,
    /// Anchored in the store's `waiting` table: due later, leased to the bus, detached or held.
    Waiting = 1,
    /// Answered with 2xx. Final.
    Delivered = 2,
    /// Failed for good; lies in `dead_letters` until it is replayed or discarded. Final.
    Dead = 3,
    /// Cancelled by a person or with its destination. Final.
    Cancelled = 4,
}

impl DeliveryState {
    /// Every state, in the order of its number.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Waiting, Self::Delivered, Self::Dead, Self::Cancelled];

    /// From the number that a store kept.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u8 == number)
    }

    /// Nothing leaves this state.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Delivered | Self::Dead | Self::Cancelled)
    }

    /// Which states may follow. Stores write no other transition.
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            // Fed deliveries stay `Waiting` (their anchor is leased), so nothing returns to `Queued`.
            Self::Queued | Self::Waiting => !matches!(next, Self::Queued),
            Self::Delivered | Self::Dead | Self::Cancelled => false,
        }
    }

    /// What the API shows, given the number of attempts made so far.
    pub const fn status(self, attempts: u32) -> DeliveryStatus {
        match self {
            Self::Queued | Self::Waiting if attempts == 0 => DeliveryStatus::Pending,
            Self::Queued | Self::Waiting => DeliveryStatus::Retrying,
            Self::Delivered => DeliveryStatus::Delivered,
            Self::Dead => DeliveryStatus::Dead,
            Self::Cancelled => DeliveryStatus::Cancelled,
        }
    }
}

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $number,)* }

        impl $name {
            /// Every value, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in the API.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// From its name in the API.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)* _ => None }
            }

            /// From the number that a store kept.
            pub fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

names! {
    /// What the API calls the state of a delivery.
    DeliveryStatus {
        /// Not ended, no attempt made.
        Pending = 0 "pending",
        /// Not ended, at least one attempt made.
        Retrying = 1 "retrying",
        /// Answered with 2xx.
        Delivered = 2 "delivered",
        /// Failed for good.
        Dead = 3 "dead",
        /// Cancelled.
        Cancelled = 4 "cancelled",
    }
}

names! {
    /// What came of one HTTP request.
    AttemptOutcome {
        /// Answered with 2xx.
        Delivered = 0 "delivered",
        /// Failed; another attempt follows.
        Retry = 1 "retry",
        /// Failed; none follows.
        Dead = 2 "dead",
        /// Its process died, or lost its way, before it could write what came of it.
        Interrupted = 3 "interrupted",
    }
}

names! {
    /// Why a delivery failed for good.
    DeadReason {
        /// The retry policy allows no further attempt.
        Exhausted = 0 "exhausted",
        /// The destination answered 410.
        Gone = 1 "gone",
        /// The destination answered 3xx; redirects are never followed.
        Redirect = 2 "redirect",
        /// The destination refused the request (4xx).
        Rejected = 3 "rejected",
        /// The destination's address is not allowed.
        EgressDenied = 4 "egress_denied",
        /// Older than `max_age`.
        Expired = 5 "expired",
        /// At most once, and the one attempt failed.
        FailedOnce = 6 "failed_once",
        /// At most once, and a crash hid what came of it.
        UnknownOutcome = 7 "unknown_outcome",
        /// A person discarded it.
        Discarded = 8 "discarded",
    }
}

names! {
    /// What a delivery in `waiting` waits for.
    WaitReason {
        /// Nothing but its turn (a replay, a large fan-out, a re-queued leftover).
        Turn = 0 "turn",
        /// The pause before its next attempt.
        Retry = 1 "retry",
        /// A token of its destination's rate limit.
        RateLimit = 2 "rate_limit",
        /// A free slot: too many requests of its destination are out.
        Slot = 3 "slot",
        /// Its destination's circuit to close.
        Circuit = 4 "circuit",
        /// Its destination to be resumed.
        Paused = 5 "paused",
        /// The deliveries of its lane before it.
        Lane = 6 "lane",
        /// A detached request that is still out; due when that must have ended.
        InFlight = 7 "in_flight",
    }
}
