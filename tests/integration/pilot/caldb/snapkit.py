"""A small calibration dump, shaped as docs/facts/caldb.md says, for tests."""

from __future__ import annotations

import shutil
from pathlib import Path

DUMP = """\
-- calibrations; with a ';' in a comment
SET NAMES utf8mb4;
DROP TABLE IF EXISTS `calib_iov`;
CREATE TABLE `calib_iov` (
  `detector` VARCHAR(16) NOT NULL, `ctype` VARCHAR(16) NOT NULL, t_from INT UNSIGNED NOT NULL,
  t_to INT UNSIGNED NOT NULL,
  version INT NOT NULL, ctime INT NOT NULL COMMENT 'made; by hand', payload_id INT NOT NULL,
  PRIMARY KEY (detector, ctype, t_from, version), KEY by_payload (payload_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='intervals (of validity)';
CREATE TABLE calib_payload (payload_id INT NOT NULL PRIMARY KEY, size INT NOT NULL, data MEDIUMBLOB NOT NULL);
INSERT INTO calib_iov VALUES ('DC00', 'T0', 0, 100, 1, 5, 1),
 ('DC00', 'T0', 0, 100, 2, 6, 2), ('it''s; \\\\', 'x\\'y', 0, 1, 1, 1, 3);
INSERT INTO calib_payload VALUES (1, 3, 0x616263), (2, 4, 0x00ff2764), (3, 0, '');
"""
PROBE = "SELECT size FROM calib_payload WHERE payload_id = 2"

no_server = shutil.which("mariadbd", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None


def write_dump(directory: Path, text: str = DUMP) -> Path:
    path = directory / "calibrations.sql"
    path.write_text(text)
    return path
