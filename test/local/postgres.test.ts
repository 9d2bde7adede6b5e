import { chmod, mkdir, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import { describe, expect, it, onTestFinished } from 'vitest'
import { cacheFolder, isRoot, makeFolder } from '#local/cache.ts'
import { findFreePort } from '#local/free-port.ts'
import { installPostgresBinaries } from '#local/postgres-binaries.ts'
import { type Postgres, type PostgresOptions, startPostgres } from '#local/postgres.ts'
import { useScratchFolder } from '../support/scratch.ts'

/** Above every process id that a Linux kernel gives out (2^22). */
const NO_SUCH_PID = 99_999_999

describe('the local Postgres', () => {
  it('keeps what was committed when it is killed, and starts again on the same port', async () => {
    const dataDir = await useScratchFolder()
    const first = await start({ dataDir })
    await query(first.adminUrl, 'create table kept (id int)')
    await query(first.adminUrl, 'insert into kept select generate_series(1, 1000)')
    await first.kill()

    const second = await start({ dataDir, port: first.port })

    expect(second.adminUrl).toBe(first.adminUrl)
    expect(await query(second.adminUrl, 'select count(*)::int as rows from kept')).toEqual([{ rows: 1000 }])
  })

  it('is Postgres 18, answers on loopback only, and refuses a wrong password', async () => {
    const server = await start({ dataDir: await useScratchFolder() })
    const [settings] = await query(
      server.adminUrl,
      `select current_setting('server_version_num')::int / 10000 as version,
              current_setting('listen_addresses') as addresses,
              current_setting('unix_socket_directories') as sockets,
              current_setting('fsync') as fsync`,
    )

    expect(settings).toEqual({ version: 18, addresses: '127.0.0.1', sockets: '', fsync: 'on' })
    const wrong = new URL(server.adminUrl)
    wrong.password = 'guessed'
    await expect(query(wrong.href, 'select 1')).rejects.toThrow('password authentication failed')
  })

  it('starts over a pid file whose process id has gone to a stranger', async () => {
    const dataDir = await useScratchFolder()
    const first = await start({ dataDir })
    await first.kill()
    const pidFile = join(dataDir, 'cluster', 'postmaster.pid')
    const lines = (await readFile(pidFile, 'utf8')).split('\n')
    await writeFile(pidFile, [String(process.pid), ...lines.slice(1)].join('\n'))

    const second = await start({ dataDir })

    expect(await query(second.adminUrl, 'select 1 as alive')).toEqual([{ alive: 1 }])
  })

  it('makes a new cluster where the making of one was killed, and clears the rest away', async () => {
    const dataDir = await useScratchFolder()
    const halfMade = join(dataDir, `cluster.${NO_SUCH_PID}-0123abcd.tmp`)
    await mkdir(halfMade)
    await writeFile(join(halfMade, 'PG_VERSION'), '18\n')
    await writeFile(join(dataDir, `cluster-password.${NO_SUCH_PID}-0123abcd.tmp`), 'secret')

    const server = await start({ dataDir })

    expect(await query(server.adminUrl, 'select 1 as alive')).toEqual([{ alive: 1 }])
    expect((await readdir(dataDir)).toSorted()).toEqual(['cluster', 'postgres.log'])
  })

  it('keeps its password where only its own user can read it', async () => {
    const dataDir = await useScratchFolder()
    const server = await start({ dataDir })

    const { mode } = await stat(join(dataDir, 'cluster', 'purser-password'))

    expect(mode & 0o777).toBe(0o600)
    expect(new URL(server.adminUrl).password).toMatch(/^[\w-]{32}$/)
  })

  it('waits for its port while another process still has it', async () => {
    const taken = await start({ dataDir: await useScratchFolder() })
    const dataDir = await useScratchFolder()
    setTimeout(() => void taken.stop(), 300)

    const server = await start({ dataDir, port: taken.port })

    expect(server.port).toBe(taken.port)
  })

  it('refuses a second owner of the same data with a sentence', async () => {
    const dataDir = await useScratchFolder()
    await start({ dataDir })

    await expect(start({ dataDir, releaseTimeoutMs: 500 })).rejects.toThrow(
      /Another Purser is using .* PURSER_DATA_DIR/,
    )
  })

  it.runIf(isRoot())('tells root which folder is closed to the user Postgres runs as', async () => {
    const closed = await useScratchFolder()
    await makeFolder(join(closed, 'data'))
    await chmod(closed, 0o700)

    await expect(start({ dataDir: join(closed, 'data') })).rejects.toThrow(`cannot enter ${closed}`)
  })
})

describe('the cached programs of Postgres', () => {
  it('are copied again when one is damaged or lost', async () => {
    const cacheDir = await useScratchFolder()
    const { initdb, postgres } = await installPostgresBinaries(cacheDir)
    await truncate(postgres, 1_000)
    await rm(initdb)

    await installPostgresBinaries(cacheDir)

    const server = await start({ cacheDir, dataDir: await useScratchFolder() })
    expect(await query(server.adminUrl, 'select 1 as alive')).toEqual([{ alive: 1 }])
  })

  it('are copied once by installers that run at the same time', async () => {
    const cacheDir = await useScratchFolder()

    const [first, second] = await Promise.all([installPostgresBinaries(cacheDir), installPostgresBinaries(cacheDir)])

    expect(first).toEqual(second)
    expect(await readdir(join(cacheDir, 'postgres'))).toHaveLength(1)
  })
})

async function start(options: Partial<PostgresOptions> & { readonly dataDir: string }): Promise<Postgres> {
  const server = await startPostgres({
    cacheDir: cacheFolder(process.env),
    logFile: join(options.dataDir, 'postgres.log'),
    durable: true,
    port: await findFreePort(),
    ...options,
  })
  onTestFinished(() => server.stop())
  return server
}

async function query(url: string, statement: string): Promise<unknown[]> {
  const client = new pg.Client(url)
  try {
    await client.connect()
    const { rows } = await client.query<Record<string, unknown>>(statement)
    return rows
  } finally {
    await client.end()
  }
}
