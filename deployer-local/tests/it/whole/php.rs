//! `examples/php-shop`: nginx, php-fpm, MariaDB and Redis from one Compose file, through releases good and bad.

use std::net::{Ipv4Addr, SocketAddr};

use deployer_core::{AppSpec, Retention, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::site::{HOST, Site, assert_images, assert_none_lost, free_port, promoted};

/// A shop, and the port that it publishes beside its route.
struct Shop {
    site: Site,
    port: u16,
}

impl Shop {
    async fn new() -> Self {
        let site = Site::new("php").await;
        let images = ["nginx:1.22-alpine", "php:8.2-fpm", "mariadb:10.11"];
        assert_images(&site.docker, &images, "scripts/images php").await;
        Self { site, port: free_port() }
    }

    fn release(&self, name: &str) -> AppSpec {
        let variables = [("RELEASE", name), ("PORT", &self.port.to_string())];
        self.site.place.read("examples/php-shop/compose.yaml", &variables)
    }

    /// What the shop answers to the visitor whose cart this test looks into.
    async fn ask(&self, address: SocketAddr, request: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "{request} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nCookie: cart=0123456789abcdef\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// The front page has to show this, by the route and at the published port.
    async fn assert_shows(&self, parts: &[&str]) {
        for address in [self.site.place.http, SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))] {
            let page = self.ask(address, "GET /", "").await;
            for part in parts {
                assert!(page.starts_with("HTTP/1.1 200 ") && page.contains(part), "{part:?} is not in: {page}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_in_php_loses_no_request_and_no_data() {
    let shop = Shop::new().await;
    let site = &shop.site;
    site.deploy_well(shop.release("v1")).await;
    let keepers = (site.instances("database").await, site.instances("cache").await);
    shop.assert_shows(&["PHP shop v1", "Kettle 49.50, in the cart: 0"]).await;
    let bought = shop.ask(site.place.http, "POST /cart", "product=2").await;
    assert!(bought.starts_with("HTTP/1.1 303 "), "{bought}");
    shop.assert_shows(&["Kettle 49.50, in the cart: 1"]).await;
    assert!(site.get("/style.css").await.1.contains("seagreen"));

    // Pages that are quick, and some that are under way whenever something is stopped.
    let loads = [site.load("/", 20).start(), site.load("/slow", 20).start()];
    site.deploy_well(shop.release("v2")).await;
    shop.assert_shows(&["PHP shop v2", "Kettle 49.50 (5 left), in the cart: 1"]).await;
    assert!(site.get("/style.css").await.1.contains("steelblue"));
    let web = (site.instances("web").await, site.instances("php").await);

    let record = site.deploy(shop.release("broken")).finished().await.unwrap();
    let verdict = record.verdict.unwrap();
    assert!(matches!(verdict, Verdict::RolledBack { .. }), "{verdict}");
    let told = verdict.to_string();
    for part in ["0 of 2 instances of php", "Call to undefined function bcdiv()", "Status: 500"] {
        assert!(told.contains(part), "{part:?} is not in: {told}");
    }
    shop.assert_shows(&["PHP shop v2", "Kettle 49.50 (5 left), in the cart: 1"]).await;
    assert_eq!((site.instances("web").await, site.instances("php").await), web);

    promoted(site.deployer.rollback(site.app(), None)).await;
    for load in loads {
        assert_none_lost(&load.stop().await, &["v1", "v2"]);
    }
    // The code before does not mind the new column.
    shop.assert_shows(&["PHP shop v1", "Kettle 49.50, in the cart: 1"]).await;
    assert_eq!((site.instances("database").await, site.instances("cache").await), keepers, "they were left alone");
    site.assert_no_strays().await;

    promoted(site.deployer.destroy(site.app(), true)).await;
    site.deployer.prune(site.app(), Retention::releases(0)).await.unwrap();
    assert_eq!(site.everything().await, Vec::<String>::new());
}
