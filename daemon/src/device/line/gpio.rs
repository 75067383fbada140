//! Lines of a GPIO chip through the kernel's character device (uAPI v2).
//!
//! In: edges with the kernel's time, already debounced by the kernel. Out: samples, [`LineError`]s. Invariant: the
//! level follows the last edge; when an edge was lost the line is read instead. Kept thin: everything that can be
//! wrong without a chip is in [`KernelTime`], [`Edges`] and [`explain`].

use std::{path::Path, time::Duration};

use gpiocdev::{
    Chip, Request,
    line::{EdgeDetection, EdgeKind, Value},
    tokio::AsyncRequest,
};
use nix::errno::Errno;

use super::{DigitalInput, DigitalOutput, LineError, Sample};
use crate::{clock::Clock, time::Mono};

/// How this process shows up in `gpioinfo`.
const CONSUMER: &str = "ladewartd";

/// An input line.
#[derive(Debug)]
pub struct Input {
    request: AsyncRequest,
    name: String,
    clock: Clock,
    looked: bool,
    edges: Edges,
    time: KernelTime,
}

impl Input {
    /// Requests the line with both edges; the kernel filters pulses shorter than `bounce`.
    pub fn open(chip: &Path, offset: u32, bounce: Duration, clock: Clock) -> Result<Self, LineError> {
        let mut builder = Request::builder();
        builder.on_chip(chip).with_consumer(CONSUMER).with_line(offset).as_input();
        builder.with_edge_detection(EdgeDetection::BothEdges);
        if !bounce.is_zero() {
            builder.with_debounce_period(bounce);
        }
        let request = builder.request().map_err(|e| explain(chip, offset, "request", &e))?;
        let name = format!("line {offset} of {}", chip.display());
        let (edges, time) = (Edges::default(), KernelTime::default());
        Ok(Self { request: AsyncRequest::new(request), name, clock, looked: false, edges, time })
    }

    fn level(&self) -> Result<bool, LineError> {
        match self.request.as_ref().lone_value() {
            Ok(value) => Ok(value == Value::Active),
            Err(error) => Err(self.failed("read", &error)),
        }
    }

    fn failed(&self, verb: &str, error: &gpiocdev::Error) -> LineError {
        LineError::Failed { what: format!("{} cannot be {verb}", self.name), why: error.to_string() }
    }
}

impl DigitalInput for Input {
    async fn next(&mut self) -> Result<Sample, LineError> {
        if !self.looked {
            self.looked = true;
            return Ok(Sample { closed: self.level()?, at: self.clock.now().mono });
        }
        let edge = self.request.read_edge_event().await.map_err(|e| self.failed("watched", &e))?;
        let arrived = self.clock.now().mono;
        if self.edges.lost(edge.line_seqno) {
            tracing::warn!(line = %self.name, "edges were lost; the level is read instead");
            return Ok(Sample { closed: self.level()?, at: arrived });
        }
        let at = self.time.place(Duration::from_nanos(edge.timestamp_ns), arrived);
        Ok(Sample { closed: edge.kind == EdgeKind::Rising, at })
    }
}

/// Counts a line's edges: the kernel numbers them from 1 and drops them when nobody reads.
#[derive(Debug, Default)]
struct Edges {
    last: u32,
}

impl Edges {
    /// Whether edges are missing before this one.
    const fn lost(&mut self, number: u32) -> bool {
        let expected = self.last.wrapping_add(1);
        self.last = number;
        number != expected
    }
}

/// Places the kernel's monotonic time on ours. Both run alike from different zeros; the smallest difference seen
/// between an edge and its arrival is the closest to the zeros' distance.
#[derive(Debug, Default)]
struct KernelTime {
    ahead: Option<i128>,
}

impl KernelTime {
    /// When an edge was, on our clock; never later than its arrival.
    fn place(&mut self, edge: Duration, arrived: Mono) -> Mono {
        let nanos = |d: Duration| i128::try_from(d.as_nanos()).unwrap_or(i128::MAX);
        let difference = nanos(arrived.0) - nanos(edge);
        let ahead = self.ahead.map_or(difference, |known| known.min(difference));
        self.ahead = Some(ahead);
        let placed = u64::try_from((nanos(edge) + ahead).max(0)).unwrap_or(u64::MAX);
        Mono(Duration::from_nanos(placed)).min(arrived)
    }
}

/// An output line.
#[derive(Debug)]
pub struct Output {
    request: Request,
    name: String,
}

impl Output {
    /// Requests the line, inactive.
    pub fn open(chip: &Path, offset: u32) -> Result<Self, LineError> {
        let mut builder = Request::builder();
        builder.on_chip(chip).with_consumer(CONSUMER).with_line(offset).as_output(Value::Inactive);
        let request = builder.request().map_err(|e| explain(chip, offset, "request", &e))?;
        Ok(Self { request, name: format!("line {offset} of {}", chip.display()) })
    }
}

impl DigitalOutput for Output {
    fn set(&mut self, energised: bool) -> Result<(), LineError> {
        let value = if energised { Value::Active } else { Value::Inactive };
        self.request.set_lone_value(value).map_err(|error| LineError::Failed {
            what: format!("{} cannot be switched", self.name),
            why: error.to_string(),
        })
    }

    fn read_back(&mut self) -> Result<Option<bool>, LineError> {
        match self.request.lone_value() {
            Ok(value) => Ok(Some(value == Value::Active)),
            Err(error) => Err(LineError::Failed {
                what: format!("{} cannot be read back", self.name),
                why: error.to_string(),
            }),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // What a line does when its holder goes depends on the chip's driver. What fails here was reported before.
        let _ = self.set(false);
    }
}

/// An error of the request in words, with the present holder of a busy line.
fn explain(chip: &Path, offset: u32, verb: &str, error: &gpiocdev::Error) -> LineError {
    match errno(error) {
        Some(Errno::EBUSY) => {
            let info = Chip::from_path(chip).and_then(|c| c.line_info(offset));
            let by = info.ok().map(|i| i.consumer).filter(|c| !c.is_empty());
            let by = by.map_or_else(|| "another program or the kernel".to_owned(), |c| format!("{c:?}"));
            LineError::Busy { chip: chip.to_owned(), offset, by }
        }
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => {
            LineError::Absent { what: chip.display().to_string(), why: error.to_string() }
        }
        Some(Errno::EINVAL) => {
            LineError::Absent { what: format!("line {offset} of {}", chip.display()), why: error.to_string() }
        }
        Some(Errno::EACCES | Errno::EPERM) => LineError::Failed {
            what: format!("no permission to {verb} line {offset} of {}", chip.display()),
            why: format!("{error}; the daemon's user must be in the group of the chip's device file"),
        },
        _ => match error {
            gpiocdev::Error::GpioChip(..) => {
                LineError::Absent { what: chip.display().to_string(), why: error.to_string() }
            }
            _ => LineError::Failed {
                what: format!("line {offset} of {} cannot be had", chip.display()),
                why: error.to_string(),
            },
        },
    }
}

/// The system's error number, wherever the crate keeps it.
fn errno(error: &gpiocdev::Error) -> Option<Errno> {
    match error {
        gpiocdev::Error::Os(number) | gpiocdev::Error::Uapi(_, gpiocdev_uapi::Error::Os(number)) => {
            Some(Errno::from_raw(number.0))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use gpiocdev::UapiCall;
    use gpiocdev_uapi::Errno as Number;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn errors_are_said_in_words() {
        let chip = PathBuf::from("/dev/gpiochip99");
        let said = |number: Errno| {
            let error =
                gpiocdev::Error::Uapi(UapiCall::GetLine, gpiocdev_uapi::Error::Os(Number(number as i32)));
            explain(&chip, 4, "request", &error).to_string()
        };
        assert_eq!(
            said(Errno::EBUSY),
            "line 4 of /dev/gpiochip99 is in use by another program or the kernel; end that program, or configure \
             another line"
        );
        assert!(said(Errno::EACCES).starts_with("no permission to request line 4 of /dev/gpiochip99: "));
        assert!(said(Errno::EINVAL).starts_with("line 4 of /dev/gpiochip99 is not there: "));
        assert!(said(Errno::ENODEV).starts_with("/dev/gpiochip99 is not there: "));
        assert!(said(Errno::EIO).starts_with("line 4 of /dev/gpiochip99 cannot be had: "));
    }

    #[tokio::test]
    async fn what_is_no_chip_is_refused_with_its_name() {
        let open = |path: &str| Input::open(Path::new(path), 0, Duration::ZERO, Clock::system()).unwrap_err();
        for path in ["/dev/gpiochip99", "/dev/null"] {
            let error = open(path);
            assert!(matches!(error, LineError::Absent { .. }), "{error:?}");
            assert!(error.to_string().starts_with(&format!("{path} is not there: ")), "{error}");
        }
        assert!(matches!(Output::open(Path::new("/dev/null"), 0), Err(LineError::Absent { .. })));
    }

    #[test]
    fn a_gap_in_the_numbers_is_a_lost_edge() {
        let mut edges = Edges::default();
        let lost: Vec<_> = [1, 2, 3, 5, 6, 6].into_iter().map(|n| edges.lost(n)).collect();
        assert_eq!(lost, [false, false, false, true, false, true]);
        let mut edges = Edges { last: u32::MAX };
        assert!(!edges.lost(0));
    }

    proptest! {
        /// Edges keep their distances to the nanosecond once one of them arrived without delay.
        #[test]
        fn edges_keep_their_distances(zero in 0_u64..1 << 40, waits in prop::collection::vec((0_u64..1 << 30, 0_u64..1 << 30), 1..20)) {
            let mut time = KernelTime::default();
            let (mut edge, mut last) = (1 << 41, Mono::default());
            prop_assert_eq!(time.place(Duration::from_nanos(edge), Mono(Duration::from_nanos(edge - zero))), Mono(Duration::from_nanos(edge - zero)));
            for (gap, delay) in waits {
                edge += gap;
                let arrived = Mono(Duration::from_nanos(edge - zero + delay));
                let placed = time.place(Duration::from_nanos(edge), arrived);
                prop_assert_eq!(placed, Mono(Duration::from_nanos(edge - zero)));
                prop_assert!(placed <= arrived && placed >= last);
                last = placed;
            }
        }
    }
}
