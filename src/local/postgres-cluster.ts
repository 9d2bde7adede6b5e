import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chown, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { makeFolder } from './cache.ts'
import type { Account } from './postgres-account.ts'
import { removeAbandoned, temporaryPath } from './temporary-path.ts'

export interface ClusterOptions {
  readonly dataDir: string
  readonly initdb: string
  readonly account: Account | undefined
  readonly durable: boolean
}

export interface Cluster {
  /** Postgres' own data directory. */
  readonly folder: string
  readonly password: string
}

const PASSWORD_FILE = 'purser-password'
const INITDB_TIMEOUT_MS = 120_000
const PRIVATE_MODE = 0o600

/**
 * Opens the cluster of a data folder, or makes it. The making happens under another name, and the last step is one
 * rename that brings data and password together: a start that was killed half-way leaves no half cluster.
 */
export async function prepareCluster(options: ClusterOptions): Promise<Cluster> {
  const { dataDir } = options
  const folder = join(dataDir, 'cluster')
  await Promise.all([removeAbandoned(folder), removeAbandoned(passwordPath(folder))])
  if (!(await exists(join(folder, PASSWORD_FILE)))) await makeCluster(options, folder)
  return { folder, password: await readFile(join(folder, PASSWORD_FILE), 'utf8') }
}

async function makeCluster(options: ClusterOptions, folder: string): Promise<void> {
  const { initdb, account, durable } = options
  const temporary = temporaryPath(folder)
  const passwordFile = temporaryPath(passwordPath(folder))
  await makeFolder(temporary)
  await writeFile(passwordFile, randomBytes(24).toString('base64url'), { mode: PRIVATE_MODE })
  if (account !== undefined) {
    await chown(temporary, account.uid, account.gid)
    await chown(passwordFile, account.uid, account.gid)
  }
  await promisify(execFile)(initdb, initdbArguments({ temporary, passwordFile, durable }), {
    cwd: '/',
    env: postgresEnvironment(),
    timeout: INITDB_TIMEOUT_MS,
    ...account,
  })
  await rename(passwordFile, join(temporary, PASSWORD_FILE))
  await rename(temporary, folder).catch(async (cause: unknown) => {
    // Another process made the cluster meanwhile: use that one.
    if (!(await exists(join(folder, PASSWORD_FILE)))) throw cause
    await rm(temporary, { recursive: true, force: true })
  })
}

function initdbArguments(paths: {
  readonly temporary: string
  readonly passwordFile: string
  readonly durable: boolean
}): readonly string[] {
  return [
    `--pgdata=${paths.temporary}`,
    '--username=postgres',
    `--pwfile=${paths.passwordFile}`,
    '--auth=scram-sha-256',
    '--encoding=UTF8',
    '--locale=C',
    '--locale-provider=builtin', // the same order and letter classes on every machine, whatever its C library
    '--builtin-locale=C.UTF-8',
    '--no-instructions',
    ...(paths.durable ? [] : ['--no-sync']),
  ]
}

/** A clean environment: a `PGDATA` or a locale of the caller must not change the server. */
export function postgresEnvironment(): NodeJS.ProcessEnv {
  return { PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' }
}

/** Where the password waits for its cluster: `initdb` wants an empty folder. */
function passwordPath(folder: string): string {
  return `${folder}-password`
}

function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}
