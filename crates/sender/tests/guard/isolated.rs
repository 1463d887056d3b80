//! Tests that need a network of their own: they run again, in a child process in new name spaces (user, network, mount).
//!
//! What is there besides the loopback interface: a pair of interfaces, of which the other end lies in a network name space
//! of its own (see `host`); everything that is not an address of ours goes there. `/etc/resolv.conf` names 127.0.0.1.

use std::{
    env, fs,
    process::{Command, Stdio},
};

/// What the child is: the test itself, or the host at the other end.
const ROLE: &str = "GUARD_TEST_ROLE";

/// A public address of ours: a packet to it stays here.
pub const PUBLIC: &str = "93.184.215.14";

/// Which part of a test this process plays.
pub enum Role {
    /// It has done what it had to.
    Outside,
    /// The test, inside.
    Inside,
    /// The host at the other end.
    Host,
}

/// Runs the test of this name inside, where this process is not inside yet. Where name spaces are not to be had, says so;
/// with `CI=true` it fails then.
pub fn role(test: &str) -> Role {
    match env::var(ROLE).as_deref() {
        Ok("inside") => {
            set_up();
            return Role::Inside;
        }
        Ok("host") => return Role::Host,
        _ => {}
    }
    let trial = "ip link set lo up && ip link add t0 type veth peer name p0";
    let trial = Command::new("unshare").args(["-rnm", "sh", "-ec", trial]).output();
    if !trial.as_ref().is_ok_and(|output| output.status.success()) {
        assert!(env::var("CI").as_deref() != Ok("true"), "no name spaces: {trial:?}");
        eprintln!("{test}: left out, as this machine gives no name spaces (unshare -rnm)");
        return Role::Outside;
    }
    let output = child(test, "inside", &["-rnm"]).stderr(Stdio::piped()).stdin(Stdio::null()).output().unwrap();
    let (told, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("1 passed"), "{told}\n{error}");
    Role::Outside
}

/// This test again, in new name spaces.
pub fn child(test: &str, role: &str, spaces: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(spaces).arg(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(ROLE, role).stdout(Stdio::piped());
    command
}

/// Runs a script of `ip` and the like.
pub fn shell(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A name server at 127.0.0.1, asked once and for a second; nobody else is asked (no cache of the system's).
fn set_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let resolv = file("resolv.conf", "nameserver 127.0.0.1\noptions timeout:3 attempts:1\n");
    let switch = file("nsswitch.conf", "hosts: dns\n");
    shell(&format!(
        "mount --bind {resolv} /etc/resolv.conf; mount --bind {switch} /etc/nsswitch.conf; mount -t tmpfs none /run
         ip link set lo up; ip addr add {PUBLIC}/32 dev lo"
    ));
}
