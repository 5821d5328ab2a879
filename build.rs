//! Compiles the BPF object and generates its skeleton into `OUT_DIR`.

use libbpf_cargo::SkeletonBuilder;
use std::env;
use std::path::PathBuf;

const SOURCE: &str = "bpf/tlssniff.bpf.c";

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let arch = match env::var("CARGO_CFG_TARGET_ARCH")
        .expect("cargo sets it")
        .as_str()
    {
        "aarch64" => "-D__TARGET_ARCH_arm64",
        _ => "-D__TARGET_ARCH_x86",
    };
    let mut builder = SkeletonBuilder::new();
    builder.source(SOURCE).clang_args([
        arch,
        "-Ibpf",
        "-Wall",
        "-Wextra",
        "-Wno-unused-parameter",
        "-Wno-missing-field-initializers",
        "-Werror",
    ]);
    if let Some(clang) = env::var_os("CLANG") {
        builder.clang(clang);
    }
    builder
        .build_and_generate(out.join("tlssniff.skel.rs"))
        .expect("compile bpf/tlssniff.bpf.c");
}
