-- With a default: the release before, which serves on meanwhile, knows nothing of it.
ALTER TABLE products ADD COLUMN IF NOT EXISTS stock INT NOT NULL DEFAULT 5;
