import { randomBytes, randomInt } from 'node:crypto'
import { copyFile, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { postgresOfWorker } from '../support/postgres.ts'
import pg from 'pg'
import { z } from 'zod'
import { runSchema } from '#contracts/api-run.ts'
import { reportSchema } from '#contracts/report.ts'
import { isRunning } from '#local/process-table.ts'
import { pollUntil } from '../support/poll.ts'
import { useScratchFolder } from '../support/scratch.ts'
import { createWorld } from '../support/world.ts'
import { checkout, startCommand, startPurser } from './command.ts'

const UP_DEADLINE_MS = 90_000

async function useTemporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'purser-test-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** Facts that nobody can know but from these documents. */
async function writeFacts(folder: string) {
  const name = `Q${randomBytes(3).toString('hex')}`
  const year = String(randomInt(1500, 1900))
  const harbour = `The harbour of ${name} was dredged in ${year} by the engineer Mira Tandel.`
  await mkdir(join(folder, 'facts'))
  await writeFile(join(folder, 'facts', 'harbour.md'), `# Harbours\n\n${harbour}\n`)
  await writeFile(join(folder, 'facts', 'market.md'), '# Markets\n\nA market is held on Thursdays, at high tide.\n')
  return { year, harbour, question: `When was the harbour of ${name} dredged?` }
}

test('without a command, or with an unknown one, it says what there is and ends with 2', async () => {
  const [none, unknown, help] = await Promise.all([
    startPurser([]).ended,
    startPurser(['fly']).ended,
    startPurser(['help']).ended,
  ])
  expect(none).toMatchObject({ code: 2, out: expect.stringContaining('Usage: purser COMMAND') })
  expect(unknown).toMatchObject({ code: 2, err: expect.stringContaining('there is no command "fly"') })
  expect(help).toMatchObject({ code: 0, out: expect.stringContaining('verify') })
})

test('a wrong option, a missing question and a wrong amount end with 2 and a sentence', async () => {
  const [option, question, amount, both] = await Promise.all([
    startPurser(['verify', '--fast']).ended,
    startPurser(['run', 'research']).ended,
    startPurser(['run', 'research', '--question', 'Why?', '--budget', '0,05']).ended,
    startPurser(['run', 'research', '--question', 'Why?', '--budget', '1', '--credit', '1']).ended,
  ])
  expect(option).toMatchObject({ code: 2, err: expect.stringContaining("Unknown option '--fast'.") })
  expect(question).toMatchObject({ code: 2, err: expect.stringContaining('--question is missing') })
  expect(amount).toMatchObject({ code: 2, err: expect.stringContaining('0,05 is not an amount') })
  expect(both).toMatchObject({ code: 2, err: expect.stringContaining('give either --budget, or') })
})

test('where nothing runs, it says what to do', async () => {
  const env = { PURSER_DATA_DIR: await useScratchFolder() }
  const [report, verify, keyless] = await Promise.all([
    startPurser(['report', 'x'], { env }).ended,
    startPurser(['verify'], { env }).ended,
    startPurser(['report', 'x'], { env: { ...env, PURSER_URL: 'http://127.0.0.1:1' } }).ended,
  ])
  expect(report).toMatchObject({ code: 1, err: expect.stringContaining('No Purser is running here') })
  expect(verify).toMatchObject({ code: 1, err: expect.stringContaining('No Purser is running here') })
  expect(keyless).toMatchObject({ code: 1, err: expect.stringContaining('PURSER_KEY is not') })
})

test('a provider key without prices starts nothing and names the variables to set', async () => {
  const dataDir = join(await useScratchFolder(), 'data')
  const end = await startPurser(['up'], { env: { PURSER_DATA_DIR: dataDir, OPENAI_API_KEY: 'sk-none' } }).ended
  expect(end.code).toBe(1)
  expect(end.err).toContain('PURSER_PROVIDER_MODEL, PURSER_PROVIDER_INPUT_PRICE, PURSER_PROVIDER_OUTPUT_PRICE')
  await expect(stat(dataDir)).rejects.toThrow('ENOENT')
})

test('the launcher of a checkout without packages says that npm ci was not run', async () => {
  const folder = await useTemporaryFolder()
  await mkdir(join(folder, 'src/cli'), { recursive: true })
  const launcher = join(folder, 'src/cli/purser.mjs')
  await copyFile(join(checkout, 'src/cli/purser.js'), launcher)
  const end = await startPurser(['help'], { launcher }).ended
  expect(end).toMatchObject({ code: 1, err: expect.stringContaining(`Run \`npm ci\` in ${folder} first.`) })
})

test('verify names the first wrong row of a ledger that was tampered with, and ends with 1', async () => {
  const { database } = await createWorld()
  const env = { PURSER_DATABASE_URL: database.appUrl }
  expect(await startPurser(['verify'], { env }).ended).toMatchObject({ code: 0 })
  const admin = new pg.Client(database.adminUrl)
  await admin.connect()
  const { rows } = await admin.query<{ id: string }>(
    `update account set posted_credit = posted_credit + 1 where kind = 'wallet' and balance_class = 'direct' returning id`,
  )
  await admin.end()
  const end = await startPurser(['verify'], { env }).ended
  expect(end.code).toBe(1)
  expect(end.out).toContain(`first: account ${rows[0]?.id}: its balance is`)
  const quick = await startPurser(['verify', '--quick', '--json'], { env }).ended
  expect(quick.code).toBe(1)
  expect(JSON.parse(quick.out)).toMatchObject({ ok: false })
})

test('the migration brings an empty database up to date, and says what its environment lacks', async () => {
  const { adminUrl, ownerPassword, appPassword } = postgresOfWorker()
  const name = `migrated_${randomBytes(6).toString('hex')}`
  const url = new URL(adminUrl)
  url.pathname = `/${name}`
  const admin = new pg.Client(adminUrl)
  await admin.connect()
  onTestFinished(async () => {
    await admin.query(`drop database ${name} with (force)`)
    await admin.end()
  })
  await admin.query(`create database ${name}`)
  const command = [process.execPath, join(checkout, 'src/migrate-main.ts')]
  const passwords = { PURSER_OWNER_PASSWORD: ownerPassword, PURSER_APP_PASSWORD: appPassword }
  const env = { ...passwords, PURSER_ADMIN_DATABASE_URL: url.href }
  expect(await startCommand(command, { env }).ended).toMatchObject({ code: 0, out: 'The database is up to date.\n' })
  expect(await startCommand(command, { env: passwords }).ended).toMatchObject({
    code: 1,
    err: expect.stringContaining('PURSER_ADMIN_DATABASE_URL'),
  })
})

test(
  'a stack comes up, answers a run from a relative folder, reports and verifies it, and ends with all its processes',
  { timeout: 240_000 },
  async () => {
    const dataDir = await useScratchFolder()
    const folder = await useTemporaryFolder()
    const { year, harbour, question } = await writeFacts(folder)
    const env = { PURSER_DATA_DIR: dataDir }
    const up = startPurser(['up'], { env })
    await pollUntil(() => up.output.out.includes('Ctrl-C stops everything'), {
      what: up.output.err,
      deadlineMs: UP_DEADLINE_MS,
    })

    const second = await startPurser(['up'], { env }).ended
    expect(second).toMatchObject({ code: 1, err: expect.stringContaining(`A stack is running on ${dataDir} already`) })

    const order = [
      'run',
      'research',
      '--question',
      question,
      '--sources',
      'facts',
      '--direct',
      '0.05',
      '--credit',
      '0.0004',
    ]
    const plain = await startPurser(order, { env, cwd: folder }).ended
    expect(plain).toMatchObject({ code: 0, err: '' })
    expect(plain.out).toContain('Indexing 2 documents')
    expect(plain.out).toContain(year)
    expect(plain.out).toContain('[1] harbour.md')
    expect(plain.out).toMatch(/rate limited → retry[\s\S]*rate limited → fallback[\s\S]*answered · billed, useful/)

    const asJson = await startPurser([...order, '--json'], { env, cwd: folder }).ended
    const { run, report } = z.object({ run: runSchema, report: reportSchema }).parse(JSON.parse(asJson.out))
    expect(asJson.err).toContain('2 documents, indexed before')
    expect(run.output).toMatchObject({ found: true, citations: [{ source: 'harbour.md', quote: harbour }] })
    const again = await startPurser(['report', run.id, '--json'], { env }).ended
    expect(reportSchema.parse(JSON.parse(again.out))).toEqual({ ...report, asOf: expect.any(String) })

    const poor = [
      'run',
      'research',
      '--question',
      question,
      '--sources',
      'facts',
      '--budget',
      '0.002',
      '--model',
      'steady',
    ]
    const cancelled = await startPurser(poor, { env, cwd: folder }).ended
    expect(cancelled).toMatchObject({ code: 1, out: expect.stringContaining('cancelled, direct pocket') })
    const paused = await startPurser([...poor, '--on-exhausted', 'pause'], { env, cwd: folder }).ended
    expect(paused).toMatchObject({
      code: 3,
      err: expect.stringMatching(/waits for money: purser top-up \S+ --direct AMOUNT/),
    })
    await showMap(folder, env)
    const outside = await startPurser(['exec', '--budget', '0.01', '--', 'pwd'], { env, cwd: folder }).ended
    expect(outside).toMatchObject({ code: 0, out: `${folder}\n`, err: expect.stringContaining('Ended by its owner.') })
    const unknown = await startPurser(['run', 'research', '--question', 'Why?', '--model', 'gold'], { env }).ended
    expect(unknown).toMatchObject({ code: 1, err: expect.stringContaining('There is no catalog model gold.') })

    expect(await startPurser(['verify'], { env }).ended).toMatchObject({
      code: 0,
      out: expect.stringContaining('The ledger is right.'),
    })
    const { pid } = z.object({ pid: z.int() }).parse(JSON.parse(await readFile(join(dataDir, 'stack.json'), 'utf8')))
    for (const file of ['stack.json', 'secrets-keys']) {
      expect((await stat(join(dataDir, file))).mode & 0o777).toBe(0o600)
    }
    up.process.kill('SIGTERM')
    expect(await up.ended).toMatchObject({ code: 143, err: expect.stringContaining('Stopping the stack.') })
    expect(isRunning(pid)).toBe(false)
    await expect(stat(join(dataDir, 'stack.json'))).rejects.toThrow('ENOENT')
    await expect(stat(join(dataDir, 'postgres/cluster/postmaster.pid'))).rejects.toThrow('ENOENT')
  },
)

/** A file of rows goes in, and comes out with answers; a wrong one is told with its lines. */
async function showMap(folder: string, env: NodeJS.ProcessEnv): Promise<void> {
  await writeFile(join(folder, 'rows.csv'), 'id,text\n1,The tide comes in at noon.\n2,=ships leave at dawn\n')
  await writeFile(join(folder, 'wrong.csv'), 'id,text\n1\n2,a,b\n')
  const order = ['map', 'rows.csv', '--prompt', 'Say what this is about: {{text}}', '--model', 'steady']
  const mapped = await startPurser([...order, '--out', 'out.csv'], { env, cwd: folder }).ended
  expect(mapped).toMatchObject({ code: 0, out: '', err: expect.stringContaining('2 of 2 rows answered') })
  const rows = (await readFile(join(folder, 'out.csv'), 'utf8')).split('\r\n')
  expect(rows[0]).toBe('"row","id","text","state","answer","error","error_detail","cost","currency"')
  expect(rows[1]).toMatch(/^1,"1","The tide comes in at noon\.",answered,".+","?"?,,0\.\d+,USD$/)
  expect(rows[2]).toContain(`"'=ships leave at dawn"`)
  const printed = await startPurser([...order, '--max-tokens', '20'], { env, cwd: folder }).ended
  expect(printed).toMatchObject({ code: 0, out: expect.stringContaining('"row","id","text"') })
  const poor = await startPurser([...order, '--budget', '0.000001'], { env, cwd: folder }).ended
  expect(poor).toMatchObject({ code: 1, err: expect.stringContaining('cancelled, direct pocket') })
  const [wrong, column] = await Promise.all([
    startPurser(['map', 'wrong.csv', '--prompt', 'x'], { env, cwd: folder }).ended,
    startPurser(['map', 'rows.csv', '--prompt', '{{name}}'], { env, cwd: folder }).ended,
  ])
  expect(wrong).toMatchObject({ code: 1, err: expect.stringMatching(/line 2: has 1 cells.*line 3: has 3 cells/) })
  expect(column).toMatchObject({ code: 1, err: expect.stringContaining('{{name}} is no column of the dataset') })
}

test('a stack that has lost its database says so and ends, and comes up again', { timeout: 240_000 }, async () => {
  const dataDir = await useScratchFolder()
  const env = { PURSER_DATA_DIR: dataDir }
  const start = async () => {
    const up = startPurser(['up'], { env })
    await pollUntil(() => up.output.out.includes('Ctrl-C stops everything'), {
      what: up.output.err,
      deadlineMs: UP_DEADLINE_MS,
    })
    return up
  }
  const up = await start()
  const lock = await readFile(join(dataDir, 'postgres/cluster/postmaster.pid'), 'utf8')
  process.kill(Number(lock.split('\n')[0]), 'SIGKILL')
  const { code, err } = await up.ended
  expect(code).toBe(1)
  expect(err).toContain(`The postgres process ended (SIGKILL). Its log is ${join(dataDir, 'logs', 'postgres.log')}.`)
  const again = await start()
  again.process.kill('SIGTERM')
  expect((await again.ended).code).toBe(143)
})
