<?php
// Asks the pool of this container for /healthz, in FastCGI as nginx would.
declare(strict_types=1);

const BEGIN_REQUEST = 1, END_REQUEST = 3, PARAMS = 4, INPUT = 5, COMPLAINT = 7;

function record(int $type, string $content): string
{
    return pack('CCnnCx', 1, $type, 1, strlen($content), 0) . $content;
}

$variables = '';
foreach ([
    'REQUEST_METHOD' => 'GET',
    'REQUEST_URI' => '/healthz',
    'SCRIPT_FILENAME' => __DIR__ . '/index.php',
] as $name => $value) {
    $variables .= chr(strlen($name)) . chr(strlen($value)) . $name . $value;
}
$pool = @stream_socket_client('tcp://127.0.0.1:9000', $code, $error, 2);
if (!$pool) {
    echo "php-fpm does not listen: $error\n";
    exit(1);
}
stream_set_timeout($pool, 4);
fwrite($pool, record(BEGIN_REQUEST, pack('nCx5', 1, 0)) . record(PARAMS, $variables) . record(PARAMS, '') . record(INPUT, ''));
$answer = '';
while (strlen($head = (string) stream_get_contents($pool, 8)) === 8) {
    ['type' => $type, 'length' => $length, 'padding' => $padding] = unpack('Cversion/Ctype/nid/nlength/Cpadding', $head);
    if ($type === END_REQUEST) {
        break;
    }
    $answer .= substr((string) stream_get_contents($pool, $length + $padding), 0, $length);
    if ($type === COMPLAINT) {
        $answer .= "\n";
    }
}
echo trim($answer), "\n";
exit(str_ends_with($answer, "\r\n\r\nok\n") ? 0 : 1);
