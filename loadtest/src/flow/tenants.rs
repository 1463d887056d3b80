//! Tenants of a scenario, and requests that come from all of them.

use anyhow::bail;
use serde_json::json;

use super::{Flow, Requests, VARIETY, created};
use crate::{
    client::destination,
    wire::{Template, Variant},
};

/// A tenant with one destination. It shows its key to nobody.
#[derive(Clone)]
pub struct Tenant {
    /// What its events are posted with.
    key: String,
    /// The only event type that its destination wants.
    event_type: String,
}

impl Flow {
    /// Creates so many tenants `<name>-<run>-<number>`, numbered from `first` on, each with a key and a destination of its own. They
    /// all use the same event type, as the customers of a product do.
    ///
    /// # Errors
    /// One is refused, or another system is measured.
    pub async fn tenants(&self, name: &str, first: usize, count: usize) -> anyhow::Result<Vec<Tenant>> {
        if self.is_other() {
            bail!("this scenario creates tenants, which is done over Signalpost's own API");
        }
        created(count, async |nth| {
            let event_type = format!("{name}.0");
            let wanted = json!({"destination": destination(&self.next_url(), &event_type, &self.further(&json!({})))});
            let slug = format!("{name}-{}-{}", self.epoch.tag(), first + nth);
            let key = self.target.api.create_tenant(&slug, &wanted).await?;
            anyhow::Ok(Tenant { key, event_type })
        })
        .await
    }

    /// Requests of these tenants, which take turns: each with the key of one of them, and with as many of its events as the
    /// options say.
    pub fn requests_of(&self, tenants: &[Tenant]) -> Requests {
        let batch = self.options.batch;
        let of = |tenant: &Tenant| {
            let template = Template::signalpost(self.target.api.address(), &tenant.key, batch > 1);
            (template, tenant.event_type.clone())
        };
        let templates: Vec<(Template, String)> = tenants.iter().map(of).collect();
        in_turn(&templates, &self.options.sizes, batch)
    }
}

/// Requests of as many events of one type, from these templates in turn: each with each size, and no fewer events than other
/// loads have.
fn in_turn(templates: &[(Template, String)], sizes: &[usize], batch: u64) -> Requests {
    let size = usize::try_from(batch).unwrap_or(1);
    let rounds = sizes.len().max(VARIETY.div_ceil(templates.len().max(1))).div_ceil(size);
    let mut all = Vec::with_capacity(rounds * templates.len());
    for round in 0..rounds {
        for (template, event_type) in templates {
            let events: Vec<Variant> = (0..size)
                .map(|place| Variant {
                    event_type: event_type.clone(),
                    bytes: sizes[(round * size + place) % sizes.len()],
                    seed: u64::try_from(all.len() * size + place).unwrap_or(0),
                })
                .collect();
            all.push(template.prepare(&events));
        }
    }
    Requests { all: all.into(), batch }
}

#[cfg(test)]
mod tests {
    use super::{VARIETY, in_turn};
    use crate::wire::Template;

    fn texts(tenants: usize, batch: u64) -> Vec<String> {
        let of = |nth| (Template::signalpost("localhost", &format!("key-{nth}"), batch > 1), "growth.0".to_owned());
        let templates: Vec<_> = (0..tenants).map(of).collect();
        let requests = in_turn(&templates, &[300, 2_000], batch);
        requests.all.iter().map(|request| String::from_utf8_lossy(&request.bytes).into_owned()).collect()
    }

    #[test]
    fn tenants_take_turns_each_with_each_size() {
        let texts = texts(1_000, 1);
        assert_eq!(texts.len(), 2_000);
        for (nth, text) in texts.iter().enumerate() {
            assert!(text.contains(&format!("Bearer key-{}\r\n", nth % 1_000)), "{nth}: {text}");
            assert_eq!(text.len() > 1_000, nth >= 1_000, "{nth}: {}", text.len());
        }
    }

    #[test]
    fn few_tenants_have_as_many_events_as_other_loads() {
        assert_eq!(texts(1, 1).len(), VARIETY);
        let batches = texts(3, 100);
        assert!(batches.len() * 100 >= VARIETY && batches.len().is_multiple_of(3), "{}", batches.len());
        assert!(batches.iter().all(|text| text.matches("growth.0").count() == 100));
    }
}
