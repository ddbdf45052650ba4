<?php
declare(strict_types=1);

/** The database, which a migration may still be about to change. */
function database(): PDO
{
    return new PDO('mysql:host=database;dbname=shop;charset=utf8mb4', 'shop', getenv('DATABASE_PASSWORD'), [
        PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
        PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC,
        PDO::ATTR_TIMEOUT => 5,
    ]);
}

/** Where carts and visits are kept. */
function cache(): Redis
{
    $cache = new Redis();
    $cache->connect('cache', 6379, 5.0);
    return $cache;
}

function release(): string
{
    return getenv('RELEASE') ?: 'none';
}
