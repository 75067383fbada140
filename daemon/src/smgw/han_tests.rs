use std::{fs, os::unix::fs::symlink};

use super::*;

/// A kernel's files for one interface, all as they should be.
struct Kernel(tempfile::TempDir);

const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

impl Kernel {
    fn new() -> Self {
        let kernel = Self(tempfile::tempdir().unwrap());
        for name in ["han0", "wan0"] {
            kernel.write(&format!("sys/class/net/{name}/operstate"), "up\n");
            kernel.write(&format!("proc/sys/net/ipv4/conf/{name}/forwarding"), "0\n");
            kernel.write(&format!("proc/sys/net/ipv6/conf/{name}/forwarding"), "0\n");
        }
        for template in ["all", "default", "lo"] {
            kernel.write(&format!("proc/sys/net/ipv4/conf/{template}/forwarding"), "1\n");
        }
        kernel.write("proc/sys/net/ipv6/conf/all/forwarding", "0\n");
        let v4 = "wan0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  han0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        kernel.write("proc/net/route", &format!("{HEAD}{v4}"));
        let any = "00000000000000000000000000000000";
        let v6 = format!(
            "fe800000000000000000000000000000 40 {any} 00 {any} 00000100 00000001 00000000 00000001 han0\n\
             {any} 00 {any} 00 {any} ffffffff 00000001 00000000 00200200 lo\n"
        );
        kernel.write("proc/net/ipv6_route", &v6);
        kernel
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn append(&self, path: &str, text: &str) {
        let old = fs::read_to_string(self.0.path().join(path)).unwrap();
        self.write(path, &(old + text));
    }

    fn reason(&self) -> String {
        judge("han0", &read(self.0.path(), "han0").unwrap()).unwrap_or_default()
    }
}

#[test]
fn a_separated_han_is_let_pass() {
    assert_eq!(Kernel::new().reason(), "");
}

type Change<'a> = &'a dyn Fn(&Kernel);

#[test]
fn each_way_out_of_the_han_is_named_with_its_mend() {
    let not = "the HAN is not separated from other networks: ";
    let any = "00000000000000000000000000000000";
    let cases: [(Change, &str); 9] = [
        (&|k| k.write("sys/class/net/han0/bridge/bridge_id", "x"), "han0 is a bridge; give the HAN"),
        (
            &|k| {
                k.write("sys/class/net/br0/operstate", "up");
                k.write("sys/class/net/han0/brport/state", "3");
                symlink("../br0", k.0.path().join("sys/class/net/han0/master")).unwrap();
            },
            "han0 is a port of the bridge br0; take it out of the bridge",
        ),
        (
            &|k| symlink("../bond0", k.0.path().join("sys/class/net/han0/master")).unwrap(),
            "han0 belongs to bond0",
        ),
        (
            &|k| k.write("proc/sys/net/ipv4/conf/han0/forwarding", "1\n"),
            "han0 forwards IPv4; set net.ipv4.conf.han0.forwarding = 0",
        ),
        (
            &|k| k.write("proc/sys/net/ipv4/conf/wan0/forwarding", "1\n"),
            "wan0 forwards IPv4; set net.ipv4.conf.wan0.forwarding = 0",
        ),
        (&|k| k.write("proc/sys/net/ipv6/conf/all/forwarding", "1\n"), "this device forwards IPv6; set"),
        (
            &|k| k.append("proc/net/route", "han0\t00000000\t010200C0\t0003\t0\t0\t9\t00000000\t0\t0\t0\n"),
            "han0 holds an IPv4 default route; remove it",
        ),
        // Two halves make a whole.
        (
            &|k| k.append("proc/net/route", "han0\t00000080\t010200C0\t0003\t0\t0\t9\t00000080\t0\t0\t0\n"),
            "han0 holds an IPv4 default route; remove it",
        ),
        (
            &|k| {
                let next = "fe800000000000000000000000000001";
                let line = format!("{any} 00 {any} 00 {next} 00000400 00000001 00000000 00000003 han0\n");
                k.append("proc/net/ipv6_route", &line);
            },
            "han0 holds an IPv6 default route; remove it",
        ),
    ];
    for (change, says) in cases {
        let kernel = Kernel::new();
        change(&kernel);
        let reason = kernel.reason();
        assert!(reason.starts_with(&format!("{not}{says}")), "expected {says:?} in {reason:?}");
    }
    let gone = Kernel::new();
    fs::remove_dir_all(gone.0.path().join("sys/class/net/han0")).unwrap();
    assert_eq!(gone.reason(), "there is no interface han0");
}

#[test]
fn what_cannot_be_read_is_not_separated() {
    let kernel = Kernel::new();
    let han = Han::below("han0", kernel.0.path());
    let fence = han.check().unwrap();
    fs::remove_dir_all(kernel.0.path().join("proc/sys/net/ipv4")).unwrap();
    let reason = han.check().unwrap_err();
    assert!(reason.starts_with("the separation of han0 cannot be checked: "), "{reason}");
    assert!(fence.is_cancelled(), "sessions end with the separation");
}

#[test]
fn sessions_after_the_mend_are_fenced_anew() {
    let kernel = Kernel::new();
    let han = Han::below("han0", kernel.0.path());
    let before = han.check().unwrap();
    kernel.write("proc/sys/net/ipv4/conf/wan0/forwarding", "1\n");
    assert!(han.check().is_err() && before.is_cancelled());
    kernel.write("proc/sys/net/ipv4/conf/wan0/forwarding", "0\n");
    assert!(!han.check().unwrap().is_cancelled());
}
