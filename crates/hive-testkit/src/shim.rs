//! What a server believes of its machine: a clock that jumps, a disk that is slow or full.
//!
//! A small library stands in front of the C library of one server, so no test needs the rights to
//! set a real clock or to mount a small disk. It reads three numbers from a file that test and
//! server share; with all of them 0 it changes nothing. It is compiled when a test asks for it: a
//! test without a C compiler fails, it never skips.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};

/// The library. The originals are called by number: behind the names stands this very code.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const long long none[3];
static const volatile long long *shared;

static const volatile long long *words(void) {
  if (!shared) {
    const char *path = getenv("HIVE_TEST_SHIM");
    int fd = path ? open(path, O_RDONLY) : -1;
    void *map = fd < 0 ? MAP_FAILED : mmap(0, sizeof none, PROT_READ, MAP_SHARED, fd, 0);
    shared = map == MAP_FAILED ? none : map;
    if (fd >= 0) close(fd);
  }
  return shared;
}

int clock_gettime(clockid_t id, struct timespec *at) {
  int failed = syscall(SYS_clock_gettime, id, at);
  if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
    long long ms = words()[0];
    at->tv_sec += ms / 1000;
    at->tv_nsec += (ms % 1000) * 1000000;
    if (at->tv_nsec >= 1000000000) { at->tv_nsec -= 1000000000; at->tv_sec++; }
    if (at->tv_nsec < 0) { at->tv_nsec += 1000000000; at->tv_sec--; }
  }
  return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}

static void wait_for_disk(void) {
  struct timespec left = { words()[1] / 1000, words()[1] % 1000 * 1000000 };
  while (nanosleep(&left, &left) && errno == EINTR);
}

int fsync(int fd) { wait_for_disk(); return syscall(SYS_fsync, fd); }
int fdatasync(int fd) { wait_for_disk(); return syscall(SYS_fdatasync, fd); }

ssize_t write(int fd, const void *bytes, size_t count) {
  struct stat what;
  if (words()[2] && !fstat(fd, &what) && S_ISREG(what.st_mode)) {
    errno = ENOSPC;
    return -1;
  }
  return syscall(SYS_write, fd, bytes, count);
}
"#;

/// The library of one server, and the file by which it is told.
#[derive(Debug)]
pub(crate) struct Shim {
    told: File,
    environment: [(&'static str, OsString); 2],
}

impl Shim {
    /// Compiles the library into a directory.
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Self> {
        let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
        fs::write(&source, SOURCE)?;
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .stdin(Stdio::null())
            .output()
            .context("no C compiler: install one as `cc`")?;
        ensure!(
            compiled.status.success(),
            "the library does not compile:\n{}",
            String::from_utf8_lossy(&compiled.stderr)
        );
        let path = dir.join("shim.told");
        fs::write(&path, [0; 24])?;
        let told = File::options().write(true).open(&path)?;
        let environment = [
            ("LD_PRELOAD", library.into_os_string()),
            ("HIVE_TEST_SHIM", path.into_os_string()),
        ];
        Ok(Self { told, environment })
    }

    /// What the server needs in its environment.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&'static str, &OsString)> {
        self.environment.iter().map(|(name, value)| (*name, value))
    }

    /// The server's clock is so many ms ahead of the machine's, or behind it.
    pub(crate) fn set_clock(&self, ahead_ms: i64) -> anyhow::Result<()> {
        self.tell(0, ahead_ms)
    }

    /// Each sync of a file takes this long.
    pub(crate) fn set_sync(&self, takes: Duration) -> anyhow::Result<()> {
        self.tell(1, i64::try_from(takes.as_millis())?)
    }

    /// Writes to files find no space, or find it again.
    pub(crate) fn set_full(&self, is_full: bool) -> anyhow::Result<()> {
        self.tell(2, i64::from(is_full))
    }

    fn tell(&self, place: u64, value: i64) -> anyhow::Result<()> {
        Ok(self.told.write_all_at(&value.to_ne_bytes(), place * 8)?)
    }
}
