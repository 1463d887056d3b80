//! librdkafka's mock cluster, for tests where no Apache Kafka can be had: prints its address, and ends when its
//! standard input does.

use std::io::{Read as _, Write as _};

use rdkafka::mocking::MockCluster;

fn main() -> anyhow::Result<()> {
    let cluster = MockCluster::new(1)?;
    println!("{}", cluster.bootstrap_servers());
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
