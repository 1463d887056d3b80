//! Every call that concerns one tenant names it in an argument of its own type, or in what it hands in.

#![allow(clippy::unwrap_used, reason = "a test")]

use signalpost_core::{AuditEntry, Destination, Tenant, TenantId};
use signalpost_store::manage::ReplayJob;

/// Calls of no tenant in particular, with the reason.
const OF_NONE: &[(&str, &str)] = &[
    ("tenant_by_slug", "gives the tenant"),
    ("key_by_hash", "gives the tenant"),
    ("list_tenants", "the operator's"),
    ("touch_keys", "keys that were found with their tenants; of all of them at once"),
    ("is_sealed", "of the database"),
    ("mark_sealed", "of the database"),
    ("unsealed", "of the database, and gives the tenants"),
    ("count_unsealed", "of the database"),
    ("reseal", "changes no content; the row was given with its tenant"),
    ("sealing_keys", "of the database"),
];

/// Calls that hand in something that carries its tenant.
const CARRIED: &[(&str, &str)] = &[
    ("create_destination", "destination: &Destination"),
    ("create_replay", "job: &ReplayJob"),
    ("create_tenant", "new: NewTenant<'_>"),
    ("begin_audit", "entry: &AuditEntry"),
];

/// It cannot be left out there either.
const _: fn(&Destination) -> TenantId = |it| it.tenant_id;
const _: fn(&ReplayJob) -> TenantId = |it| it.tenant_id;
const _: fn(&Tenant) -> TenantId = |it| it.id;
const _: fn(&AuditEntry) -> TenantId = |it| it.tenant_id;

/// Name and arguments after `&self` of each method of a trait.
fn methods(source: &str) -> Vec<(String, Vec<String>)> {
    let body = source.split_once("#[async_trait]\npub trait ").unwrap().1.split_once("\n}\n").unwrap().0;
    let methods = body.split("async fn ").skip(1).map(|method| {
        let (name, rest) = method.split_once('(').unwrap();
        let arguments = rest.split_once(") ->").unwrap().0;
        let arguments = arguments.split(',').map(|argument| argument.trim().to_owned());
        (name.to_owned(), arguments.filter(|argument| !argument.is_empty() && argument != "&self").collect())
    });
    methods.collect()
}

#[test]
fn no_call_leaves_its_tenant_out() {
    let sources = [include_str!("../src/manage.rs"), include_str!("../src/read.rs"), include_str!("../src/tenants.rs")];
    let all: Vec<_> = sources.into_iter().flat_map(methods).collect();
    assert!(all.len() > 45, "they are found: {all:?}");
    for (name, arguments) in &all {
        let first = arguments.first().map_or("", String::as_str);
        let is_named = first == "tenant: TenantId" || first == "id: TenantId";
        let is_carried = CARRIED.contains(&(name, first));
        let is_of_none = OF_NONE.iter().any(|(of_none, _)| of_none == name);
        let ways = [is_named, is_carried, is_of_none].into_iter().filter(|way| *way).count();
        assert_eq!(ways, 1, "{name}({}): which tenant?", arguments.join(", "));
    }
    for (name, _) in OF_NONE.iter().chain(CARRIED) {
        assert!(all.iter().any(|(method, _)| method == name), "there is no {name} any more");
    }
}
