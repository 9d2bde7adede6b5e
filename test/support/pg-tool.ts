import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** A dump wants the server's own version or a newer one. */
const MAJOR_VERSION = 18

const INSTALL = `Install it, or say in PURSER_PG_BIN in which folder it is: with the repository of postgresql.org,
  apt-get install -y postgresql-common && /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y &&
  apt-get install -y postgresql-client-${MAJOR_VERSION}
or, installing nothing, from Debian's next release: .ci/postgres-client FOLDER`

/** The path of one of Postgres' client programs. @throws what to install when there is none that is new enough */
export async function pgTool(name: 'pg_dump' | 'pg_restore'): Promise<string> {
  const { PURSER_PG_BIN: folder } = process.env
  const path = folder === undefined ? name : join(folder, name)
  const { stdout } = await promisify(execFile)(path, ['--version']).catch(() => ({ stdout: '' }))
  const major = Number.parseInt(/\(PostgreSQL\) (\d+)/.exec(stdout)?.[1] ?? '', 10)
  if (major >= MAJOR_VERSION) return path
  const found = Number.isNaN(major) ? `There is no ${path} here.` : `${path} is of version ${major}.`
  throw new Error(`${found} The drill needs ${name} ${MAJOR_VERSION} or newer. ${INSTALL}`)
}
