//! Measures what a simulated deployment costs: blue/green, three instances with a route, from what serves to what serves
//! next.
//!
//! `cargo run -p deployer-testkit --example simulated -- 5000` makes 5000 of them on one thread, in worlds of
//! their own and with requests coming in, and prints the time of the processor for each. Exits with 1 if it is more
//! than 2 ms.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use deployer_core::{AppSpec, DeployOptions, Deployer, Result, Route, ServiceSpec, Strategy};
use deployer_testkit::{FaultPlan, Traffic, World, simulate};

/// What a deployment may cost.
const BUDGET: Duration = Duration::from_millis(2);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let deployments: u32 = match arguments.next().map(|count| count.parse()) {
        None => 2_000,
        Some(Ok(count)) if count > 0 && arguments.next().is_none() => count,
        _ => {
            eprintln!("usage: simulated [DEPLOYMENTS]");
            return ExitCode::from(2);
        }
    };
    match measure(deployments) {
        Ok(cost) if cost <= BUDGET => ExitCode::SUCCESS,
        Ok(_) => {
            eprintln!("a simulated deployment shall cost {BUDGET:?} at most");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The shop with this image.
fn shop(image: &str) -> Result<AppSpec> {
    let strategy = Strategy::BlueGreen { bake: Duration::ZERO, keep_warm: Duration::from_secs(600) };
    let web = ServiceSpec::image(image).with_replicas(3).with_route(Route::new(8080)).with_http_probe("/", 8080);
    AppSpec::new("shop")?.with_service("web", web.with_strategy(strategy))
}

/// What was done in how much time.
#[derive(Default)]
struct Cost {
    first: Duration,
    next: Duration,
    calls: usize,
    simulated: Duration,
    requests: u64,
}

fn measure(deployments: u32) -> Result<Duration> {
    // The first ones warm caches and the allocator up.
    for _ in 0..deployments.div_ceil(20) {
        deploy(&mut Cost::default())?;
    }
    let mut cost = Cost::default();
    let (began, processor) = (Instant::now(), processor_time());
    for _ in 0..deployments {
        deploy(&mut cost)?;
    }
    let (wall, processor) = (began.elapsed(), processor_time().saturating_sub(processor));
    // Every run deploys twice: what serves, and what is measured beside it. Other programs are not counted in.
    let busy = if processor.is_zero() { 1.0 } else { processor.as_secs_f64() / wall.as_secs_f64() };
    let each = |time: Duration| (time / deployments).mul_f64(busy.min(1.0));
    let runs = u64::from(deployments);
    println!("{deployments} deployments; each, of the processor's time:");
    println!("  first version   {:>7.0} us", each(cost.first).as_secs_f64() * 1e6);
    println!("  next version    {:>7.0} us", each(cost.next).as_secs_f64() * 1e6);
    println!(
        "each next version: {} calls, {} requests, {:.1} s of simulated time",
        cost.calls as u64 / runs,
        cost.requests / runs,
        (cost.simulated / deployments).as_secs_f64()
    );
    Ok(each(cost.next))
}

/// Deploys a version, and the next one while requests come in.
fn deploy(cost: &mut Cost) -> Result<()> {
    let world = World::new();
    world.add_image("shop:v1");
    world.add_image("shop:v2");
    let plan = FaultPlan::new();
    let deployer = Deployer::builder(world.backend()).clock(world.clock()).intercept(plan.process().shared()).build();
    simulate(async {
        let began = Instant::now();
        deployer.deploy(shop("shop:v1")?, DeployOptions::default()).finished().await?;
        cost.first += began.elapsed();

        world.start_traffic(Traffic::to_route(None, "/").per_second(20).taking(Duration::from_millis(100)));
        let (began, calls, simulated) = (Instant::now(), plan.calls().len(), world.now());
        let record = deployer.deploy(shop("shop:v2")?, DeployOptions::default()).finished().await?;
        cost.next += began.elapsed();
        cost.calls += plan.calls().len() - calls;
        cost.simulated += world.now().since(simulated);
        world.assert_promoted(&record);
        world.assert_no_requests_lost();
        cost.requests += world.traffic_report().sent;
        Ok(())
    })
}

/// The time that this process has had of the processor; zero where the system does not tell.
fn processor_time() -> Duration {
    // The 14th and 15th fields, in hundredths of a second; the second one is the program's name in parentheses.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>()).unwrap_or_default();
    let ticks = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    Duration::from_millis(ticks * 10)
}
