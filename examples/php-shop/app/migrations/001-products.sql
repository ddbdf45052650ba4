CREATE TABLE IF NOT EXISTS products (
    id INT PRIMARY KEY,
    name VARCHAR(100) NOT NULL,
    cents INT NOT NULL
);
INSERT IGNORE INTO products (id, name, cents) VALUES (1, 'Teapot', 2900), (2, 'Kettle', 4950), (3, 'Cup', 700);
