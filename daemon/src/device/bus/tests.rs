//! A pseudo terminal each; the far end is a thread that misbehaves as told.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    thread,
};

use nix::{pty::openpty, unistd::ttyname};
use tokio::task::JoinSet;

use super::{frame::crc16, serial::Parity, *};
use crate::device::definition::Function;

/// A port on a pseudo terminal, and its far end.
struct Line {
    port: Port,
    far: File,
    /// Keeps the terminal alive while nobody has opened it.
    _near: OwnedFd,
}

impl Line {
    fn new() -> Self {
        let pair = openpty(None, None).unwrap();
        let path = ttyname(pair.slave.as_fd()).unwrap();
        let port = Port {
            path,
            mode: frame::Mode::Rtu,
            baud: 115_200,
            parity: Parity::Even,
            data_bits: 8,
            stop_bits: 1,
            answer: Duration::from_millis(150),
            late: Duration::from_millis(600),
        };
        Self { port, far: File::from(pair.master), _near: pair.slave }
    }

    fn bus(&self, tasks: &mut JoinSet<()>) -> Bus {
        let (bus, task) = Bus::new(Wire::Serial(self.port.clone()), CancellationToken::new());
        tasks.spawn(task);
        bus
    }
}

/// A read of one register.
fn read(start: u16) -> Ask {
    let request = Request::Read { function: Function::Holding, start, count: 1 };
    let (rest, patience) = (Duration::ZERO, Duration::from_secs(20));
    Ask { unit: 1, request, class: Class::Reading, rest, patience }
}

/// The next request; its first register. Reads are eight bytes long.
fn request(far: &mut File) -> Option<u16> {
    let mut bytes = [0_u8; 8];
    far.read_exact(&mut bytes).ok()?;
    Some(u16::from_be_bytes([bytes[2], bytes[3]]))
}

/// The answer to a read of one register.
fn answer(unit: u8, value: u16) -> Vec<u8> {
    let mut frame = vec![unit, 3, 2];
    frame.extend(value.to_be_bytes());
    frame.extend(crc16(&frame).to_le_bytes());
    frame
}

/// The regression for stale answers: each register holds its own number, every second answer is late.
#[tokio::test]
async fn an_answer_that_comes_too_late_is_never_the_next_ones() {
    let line = Line::new();
    let mut far = line.far.try_clone().unwrap();
    thread::spawn(move || {
        let mut late = false;
        while let Some(start) = request(&mut far) {
            if late {
                thread::sleep(Duration::from_millis(350));
            }
            late = !late;
            let _ = far.write_all(&answer(1, start));
        }
    });
    let mut tasks = JoinSet::new();
    let bus = line.bus(&mut tasks);
    let (mut good, mut late) = (0, 0);
    for start in 100..112 {
        match bus.call(read(start)).await {
            Ok(registers) => {
                assert_eq!(registers, [start], "a stale answer was believed");
                good += 1;
            }
            Err(BusError::Timeout { start: asked, unit: 1, .. }) if asked == start => late += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((good, late), (6, 6));
}

#[tokio::test]
async fn foreign_corrupt_short_long_answers_and_exceptions_are_told_apart_and_survived() {
    let line = Line::new();
    let mut far = line.far.try_clone().unwrap();
    thread::spawn(move || {
        let mut n = 0;
        while let Some(start) = request(&mut far) {
            let good = answer(1, start);
            let bytes = match n {
                0 => answer(2, start),
                1 => [&good[..4], &[good[4] ^ 1], &good[5..]].concat(),
                2 => good[..4].to_vec(),
                3 => [&good[..], &[0]].concat(),
                4 => vec![1, 0x83, 2, 0xC0, 0xF1],
                _ => good,
            };
            n += 1;
            let _ = far.write_all(&bytes);
        }
    });
    let mut tasks = JoinSet::new();
    let bus = line.bus(&mut tasks);
    for expected in [
        "not an answer to registers from 0x0007 of unit 1: unit 2 answers",
        "not an answer to registers from 0x0007 of unit 1: the check sum is wrong",
        "not an answer to registers from 0x0007 of unit 1: it ends after 4 of 7 bytes",
        "not an answer to registers from 0x0007 of unit 1: not a frame: more bytes follow the answer",
        "the device has no such registers (exception 2) for registers from 0x0007 of unit 1",
    ] {
        assert_eq!(bus.call(read(7)).await.unwrap_err().to_string(), expected);
    }
    assert_eq!(bus.call(read(7)).await, Ok(vec![7]));
}

#[tokio::test]
async fn a_bus_that_is_never_silent_is_told_so() {
    let line = Line::new();
    let mut far = line.far.try_clone().unwrap();
    thread::spawn(move || {
        // 3.5 characters at 1200 Bd are 32 ms.
        while far.write_all(&[0x55]).is_ok() {
            thread::sleep(Duration::from_millis(2));
        }
    });
    let mut tasks = JoinSet::new();
    let slow = Line { port: Port { baud: 1200, ..line.port.clone() }, ..line };
    let bus = slow.bus(&mut tasks);
    assert_eq!(bus.call(read(7)).await, Err(BusError::Occupied));
}

#[tokio::test]
async fn setpoints_go_before_readings_and_what_is_too_late_is_not_sent() {
    let line = Line::new();
    let mut far = line.far.try_clone().unwrap();
    let (seen_in, mut seen) = mpsc::unbounded_channel();
    thread::spawn(move || {
        while let Some(start) = request(&mut far) {
            let _ = seen_in.send(start);
            thread::sleep(Duration::from_millis(50));
            let _ = far.write_all(&answer(1, start));
        }
    });
    let mut tasks = JoinSet::new();
    let bus = line.bus(&mut tasks);
    let mut calls = JoinSet::new();
    let ask = |ask: Ask, bus: &Bus, calls: &mut JoinSet<_>| {
        let bus = bus.clone();
        calls.spawn(async move { bus.call(ask).await });
    };
    ask(read(1), &bus, &mut calls);
    assert_eq!(seen.recv().await, Some(1));
    // While the first is under way: two readings, one without patience, then a setpoint.
    ask(read(2), &bus, &mut calls);
    ask(Ask { patience: Duration::ZERO, ..read(3) }, &bus, &mut calls);
    tokio::task::yield_now().await;
    ask(Ask { class: Class::Setpoint, ..read(4) }, &bus, &mut calls);
    let outcomes = calls.join_all().await;
    let mut order = Vec::new();
    while let Ok(start) = seen.try_recv() {
        order.push(start);
    }
    assert_eq!(order, [4, 2]);
    assert!(outcomes.contains(&Err(BusError::Busy(Duration::ZERO))), "{outcomes:?}");
}

#[tokio::test]
async fn a_port_that_is_not_there_or_held_says_so() {
    let line = Line::new();
    let mut tasks = JoinSet::new();
    let gone = Line { port: Port { path: "/dev/ttyUSB99".into(), ..line.port.clone() }, ..Line::new() };
    let error = gone.bus(&mut tasks).call(read(1)).await.unwrap_err().to_string();
    assert_eq!(error, "/dev/ttyUSB99: is not there; plug the adapter in, or name another port");
    let null = Line { port: Port { path: "/dev/null".into(), ..line.port.clone() }, ..Line::new() };
    let error = null.bus(&mut tasks).call(read(1)).await.unwrap_err().to_string();
    assert_eq!(error, "/dev/null: is not a serial port");
    let _held = tty::Tty::open(&line.port).unwrap();
    let error = line.bus(&mut tasks).call(read(1)).await.unwrap_err().to_string();
    assert!(error.ends_with("another program holds it; end that program"), "{error}");
}

#[test]
fn the_line_s_times_are_those_of_the_specification() {
    let port = Line::new().port;
    let at = |baud| Port { baud, ..port.clone() };
    assert_eq!(at(9600).time_of(1), Duration::from_nanos(1_145_833));
    assert_eq!(at(19_200).silence(), Duration::from_nanos(2_005_208));
    assert_eq!(at(38_400).silence(), Duration::from_micros(1750));
}
