<?php
declare(strict_types=1);

/** A line for each product, by number. Works where it was written; the image has no bcmath. */
function products(PDO $database): array
{
    $lines = [];
    foreach ($database->query('SELECT id, name, cents FROM products ORDER BY id') as $product) {
        $lines[$product['id']] = $product['name'] . ' ' . bcdiv((string) $product['cents'], '100', 2);
    }
    return $lines;
}
