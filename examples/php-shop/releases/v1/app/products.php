<?php
declare(strict_types=1);

/** A line for each product, by number. */
function products(PDO $database): array
{
    $lines = [];
    foreach ($database->query('SELECT id, name, cents FROM products ORDER BY id') as $product) {
        $lines[$product['id']] = sprintf('%s %.2f', $product['name'], $product['cents'] / 100);
    }
    return $lines;
}
