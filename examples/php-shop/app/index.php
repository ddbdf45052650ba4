<?php
declare(strict_types=1);

require __DIR__ . '/shop.php';
require __DIR__ . '/products.php';

header('X-Version: ' . release());
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
match ($_SERVER['REQUEST_METHOD'] . ' ' . $path) {
    'GET /' => front(),
    'POST /cart' => add_to_cart(),
    'GET /slow' => slow(),
    'GET /healthz' => health(),
    default => not_found(),
};

/** Whose cart it is; a new visitor gets one. */
function cart(): string
{
    $id = $_COOKIE['cart'] ?? '';
    if (!is_string($id) || !preg_match('/^[0-9a-f]{16}$/', $id)) {
        $id = bin2hex(random_bytes(8));
        setcookie('cart', $id, ['path' => '/', 'httponly' => true, 'samesite' => 'Lax']);
    }
    return "cart:$id";
}

function front(): void
{
    $cache = cache();
    $visitor = $cache->incr('visits');
    $cart = $cache->hGetAll(cart());
    echo "<!doctype html>\n<title>PHP shop</title>\n<link rel=\"stylesheet\" href=\"/style.css\">\n";
    echo '<h1>PHP shop ', release(), "</h1>\n<ul>\n";
    foreach (products(database()) as $id => $line) {
        echo '<li>', htmlspecialchars($line), ', in the cart: ', $cart[$id] ?? 0;
        echo "<form method=\"post\" action=\"/cart\"><button name=\"product\" value=\"$id\">Buy</button></form></li>\n";
    }
    echo "</ul>\n<p>You are visitor $visitor.</p>\n";
}

function add_to_cart(): void
{
    $product = filter_input(INPUT_POST, 'product', FILTER_VALIDATE_INT);
    if (!is_int($product) || !isset(products(database())[$product])) {
        not_found();
        return;
    }
    cache()->hIncrBy(cart(), (string) $product, 1);
    header('Location: /', true, 303);
}

/** A page that takes its time, to see that a deployment waits for it. */
function slow(): void
{
    usleep(random_int(100_000, 300_000));
    echo release(), "\n";
}

/** Whether this release can do its work with the database and the cache as they are. */
function health(): void
{
    header('Content-Type: text/plain');
    products(database());
    cache()->ping();
    echo "ok\n";
}

function not_found(): void
{
    http_response_code(404);
    echo "There is no such page.\n";
}
