<?php
// Brings the database to what this release needs. It may be run twice, also at once, and be killed anywhere: whoever comes later
// goes on, because each file may be applied again.
declare(strict_types=1);

require __DIR__ . '/shop.php';

$database = database();
$database->query("SELECT GET_LOCK('migrations', 30)")->fetchAll();
$database->exec('CREATE TABLE IF NOT EXISTS migrations (name VARCHAR(100) PRIMARY KEY)');
$done = $database->query('SELECT name FROM migrations')->fetchAll(PDO::FETCH_COLUMN);
foreach (glob(__DIR__ . '/migrations/*.sql') as $file) {
    $name = basename($file, '.sql');
    if (in_array($name, $done, true)) {
        continue;
    }
    foreach (explode(";\n", trim(file_get_contents($file))) as $statement) {
        $database->exec($statement);
    }
    $database->prepare('INSERT INTO migrations (name) VALUES (?)')->execute([$name]);
    echo "migrate: applied $name\n";
}
echo 'migrate: the database is ready for ', release(), "\n";
