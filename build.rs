//! Compiles the BPF objects and generates their skeletons into `OUT_DIR`.

use libbpf_cargo::SkeletonBuilder;
use std::env;
use std::path::PathBuf;

const SOURCE: &str = "bpf/tlssniff.bpf.c";

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let arch = match env::var("CARGO_CFG_TARGET_ARCH")
        .expect("cargo sets it")
        .as_str()
    {
        "aarch64" => "-D__TARGET_ARCH_arm64",
        _ => "-D__TARGET_ARCH_x86",
    };
    let arguments = [
        arch,
        "-Ibpf",
        "-Wall",
        "-Wextra",
        "-Wno-unused-parameter",
        "-Wno-missing-field-initializers",
        "-Werror",
    ];
    // The second is for Linux 5.8 to 5.14.
    for (name, more) in [("usual", None), ("old", Some("-DTS_OLD_KERNEL"))] {
        let directory = out.join(name);
        std::fs::create_dir_all(&directory).expect("make a directory in OUT_DIR");
        let mut builder = SkeletonBuilder::new();
        builder
            .source(SOURCE)
            .obj(directory.join("tlssniff.bpf.o"))
            .clang_args(arguments.into_iter().chain(more));
        if let Some(clang) = env::var_os("CLANG") {
            builder.clang(clang);
        }
        builder
            .build_and_generate(directory.join("tlssniff.skel.rs"))
            .unwrap_or_else(|error| panic!("compile {SOURCE} ({name}): {error}"));
    }
}
