import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { migrate } from '#db/migrate.ts'
import type { Verification, VerifyOptions } from '#db/verify.ts'
import { cacheFolder } from '#local/cache.ts'
import type { PostgresBinaries } from '#local/postgres-binaries.ts'
import { startPostgres } from '#local/postgres.ts'
import { verifyDatabase } from '#src/cli/verify.ts'
import pg from 'pg'
import { makeScratchFolder } from '../support/scratch-folder.ts'
import type { BenchOptions } from './frame.ts'

/** A Postgres of the bench's own, as the local stack starts it, with databases that are migrated. */
export interface BenchServer {
  create(name: string): Promise<BenchDatabase>
  /** Nobody may be connected to the source. */
  clone(source: BenchDatabase, name: string): Promise<BenchDatabase>
}

export interface BenchDatabase {
  readonly name: string
  /** As the application's role. */
  readonly appUrl: string
  /** As the superuser. */
  readonly adminUrl: string
  drop(): Promise<void>
}

const FOR_DURABILITY = ['fsync', 'synchronous_commit', 'full_page_writes'] as const

export async function withServer<Result>(
  { postgres, say }: BenchOptions,
  work: (server: BenchServer) => Promise<Result>,
): Promise<Result> {
  const folder = await makeScratchFolder('bench')
  const server = await startPostgres({
    cacheDir: cacheFolder(process.env),
    dataDir: folder,
    logFile: join(folder, 'postgres.log'),
    durable: true,
    programs: postgres === undefined ? undefined : programsIn(postgres),
  })
  try {
    say(await buildOf(server.adminUrl))
    return await work(serverAt(server.adminUrl))
  } finally {
    await server.stop()
    await rm(folder, { recursive: true, force: true })
  }
}

function programsIn(folder: string): PostgresBinaries {
  return { initdb: resolve(folder, 'initdb'), postgres: resolve(folder, 'postgres') }
}

/** Which Postgres it is, and what it was compiled with: one that is built for size is slower by a third. */
async function buildOf(url: string): Promise<string> {
  const client = new pg.Client(url)
  await client.connect()
  try {
    const { rows } = await client.query<{ version: string; flags: string | null }>(
      `select current_setting('server_version') as version,
        (select substring(setting from '(?:^| )(-O\\w+)') from pg_config where name = 'CFLAGS') as flags`,
    )
    return `Postgres ${rows[0]?.version}, compiled with ${rows[0]?.flags ?? 'flags of its own'}`
  } finally {
    await client.end()
  }
}

function serverAt(adminUrl: string): BenchServer {
  const passwords = { ownerPassword: randomBytes(12).toString('hex'), appPassword: randomBytes(12).toString('hex') }

  async function described(name: string): Promise<BenchDatabase> {
    const database = {
      name,
      appUrl: urlOf(adminUrl, { pathname: `/${name}`, username: 'purser_app', password: passwords.appPassword }),
      adminUrl: urlOf(adminUrl, { pathname: `/${name}` }),
      drop: () => runAll(adminUrl, [`drop database ${name} with (force)`]),
    }
    await requireDurable(database.appUrl)
    return database
  }

  return {
    async create(name) {
      await runAll(adminUrl, [`create database ${name}`])
      await migrate({ adminUrl: urlOf(adminUrl, { pathname: `/${name}` }), ...passwords })
      return described(name)
    },
    async clone(source, name) {
      await runAll(adminUrl, [
        `create database ${name} template ${source.name}`,
        // Rights on the database itself are not cloned with it.
        `grant connect on database ${name} to purser_app`,
      ])
      return described(name)
    },
  }
}

/** A ledger that may lose what it acknowledged is fast for nothing. */
export async function requireDurable(url: string): Promise<void> {
  const client = new pg.Client(url)
  await client.connect()
  try {
    for (const setting of FOR_DURABILITY) {
      const { rows } = await client.query<{ value: string }>('select current_setting($1) as value', [setting])
      if (rows[0]?.value !== 'on') {
        throw new Error(`The bench does not run: ${setting} is ${rows[0]?.value ?? 'unknown'}, and must be on.`)
      }
    }
  } finally {
    await client.end()
  }
}

/** Runs every check of the ledger, as the command does, and throws when one finds a row that is wrong. */
export async function verifyClean(database: BenchDatabase, options: VerifyOptions = {}): Promise<Verification> {
  const verification = await verifyDatabase(database.appUrl, options)
  const wrong = verification.checks.filter((check) => !check.ok)
  if (!verification.ok) {
    const found = wrong.map((check) => `${check.name}: ${check.firstWrong}`).join('; ')
    throw new Error(`The bench's figures do not count, its ledger is wrong: ${found}`)
  }
  return verification
}

export async function runAll(url: string, statements: readonly string[]): Promise<void> {
  const client = new pg.Client(url)
  await client.connect()
  try {
    for (const statement of statements) await client.query(statement)
  } finally {
    await client.end()
  }
}

function urlOf(adminUrl: string, change: Partial<Pick<URL, 'pathname' | 'username' | 'password'>>): string {
  return Object.assign(new URL(adminUrl), change).href
}
