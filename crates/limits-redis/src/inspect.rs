//! What an operator wants to know of a Redis: `signalpost doctor`.

use signalpost_limits::LimitsUnavailable;

/// What a Redis says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Its version.
    pub version: String,
    /// The most memory that it may use; 0: no limit.
    pub max_memory_bytes: u64,
    /// What it drops when that is full.
    pub max_memory_policy: String,
}

/// Asks a Redis once. The caller bounds the time.
///
/// # Errors
/// The URL is none, or the server is away or does not let us in.
pub async fn inspect(url: &str) -> Result<Inspection, LimitsUnavailable> {
    let unavailable = |error: redis::RedisError| LimitsUnavailable(error.to_string());
    let client = redis::Client::open(url).map_err(unavailable)?;
    let mut connection = client.get_multiplexed_async_connection().await.map_err(unavailable)?;
    // INFO, because managed servers often forbid CONFIG.
    let text: String = redis::cmd("INFO").query_async(&mut connection).await.map_err(unavailable)?;
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim().to_owned()
    };
    Ok(Inspection {
        version: field("redis_version"),
        max_memory_bytes: field("maxmemory").parse().unwrap_or(0),
        max_memory_policy: field("maxmemory_policy"),
    })
}
