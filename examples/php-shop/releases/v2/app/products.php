<?php
declare(strict_types=1);

/** A line for each product, by number, with what is left of it. */
function products(PDO $database): array
{
    $lines = [];
    foreach ($database->query('SELECT id, name, cents, stock FROM products ORDER BY id') as $product) {
        $lines[$product['id']] = sprintf('%s %.2f (%d left)', $product['name'], $product['cents'] / 100, $product['stock']);
    }
    return $lines;
}
