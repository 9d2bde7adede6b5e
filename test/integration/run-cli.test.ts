import { askOwner } from '#db/run-pause.ts'
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { openRowMap } from '#db/row-map.ts'
import { beginRun } from '#db/run-begin.ts'
import { expect, test } from 'vitest'
import { makeTenant, startTestRun, useApi, usd } from '#test/support/api.ts'
import { useScratchFolder } from '#test/support/scratch.ts'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

const run = promisify(execFile)

async function usePurser() {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const address = await api.app.listen({ host: '127.0.0.1', port: 0 })
  const env = { ...process.env, PURSER_URL: address, PURSER_KEY: tenant.key }
  const purser = async (...args: readonly string[]): Promise<string> =>
    (await run(process.execPath, ['src/cli/main.ts', ...args], { env })).stdout.trim()
  return { api, tenant, purser }
}

test('people act on a run from the command line, and are told how it stands', async () => {
  const { api, tenant, purser } = await usePurser()
  const scope = { projectId: tenant.projectId }
  const runId = await startTestRun(api, tenant)
  await beginRun(api.db, scope, runId)
  expect(await purser('pause', runId)).toBe(`Run ${runId}: paused, Paused by its owner.`)
  expect(await purser('resume', runId)).toBe(`Run ${runId}: running`)
  await purser('top-up', runId, '--direct', '0.5')
  const { body } = await api.ask('GET', `/api/v1/runs/${runId}`, { key: tenant.key })
  expect(body['envelope']).toMatchObject({ pockets: [{ funded: usd('1.500000') }] })
  await askOwner(api.db, scope, { runId, path: 'ask', question: 'Go on?', choices: ['yes', 'no'] })
  expect(await purser('answer', runId, 'yes', '--path', 'ask')).toBe(`Run ${runId}: running`)
  await expect(purser('fork', runId, '--from', 'read')).rejects.toThrow('The run made no call at read.')
  expect(await purser('cancel', runId, '--wrap-up', '--reason', 'Enough.')).toBe(`Run ${runId}: running, Enough.`)
}, 240_000)

test('a dry run prints the plan, and every envelope option reaches the API', async () => {
  const { api, purser } = await usePurser()
  const folder = await useScratchFolder()
  await writeFile(join(folder, 'mill.md'), '# The mill\n\nThe mill was built in 1711.\n')
  const options = ['run', 'research', '--question', 'When?', '--sources', folder, '--dry-run']
  const printed = await purser(...options)
  expect(printed).toMatch(/steady +direct USD +0\.400000/)
  expect(printed).toMatch(/read +0 to 4 /)
  expect(printed).toContain('when direct pays')
  const cheaper = ['--downgrade-model', 'research', '--downgrade-balance', 'direct']
  const refused = ['--model', 'steady', '--on-exhausted', 'downgrade', ...cheaper]
  const limits = ['--wrap-up', '60', '--max-calls', '5', '--threshold', '50,500', '--priority', '9']
  await expect(purser(...options, ...refused, ...limits)).rejects.toThrow(
    /envelope\.wrapUpPercent.*thresholds\.1.*priority/,
  )
  const plan = JSON.parse(
    await purser(...options, ...refused, '--after-downgrade', 'pause', '--max-seconds', '60', '--json'),
  )
  expect(plan).toMatchObject({ agent: 'research', coversHigh: true })
  expect(await api.db.selectFrom('run').select('id').execute()).toEqual([])
}, 240_000)

test('rows of a run are written at any time; a map whose file could not be written starts nothing', async () => {
  const { api, tenant, purser } = await usePurser()
  const folder = await useScratchFolder()
  const file = join(folder, 'rows.csv')
  await writeFile(file, 'id,text\n1,a\n')
  const order = ['map', file, '--prompt', '{{text}}', '--model', 'steady']
  await expect(purser(...order, '--out', join(folder, 'missing', 'out.csv'))).rejects.toThrow(
    'out.csv cannot be written (ENOENT): name another file',
  )
  await expect(purser(...order, '--on-exhausted', 'downgrade')).rejects.toThrow('one of pause, cancel.')
  await expect(purser('map', file, '--prompt', '{{name}}')).rejects.toThrow('of the dataset. Of dataset')
  expect(await api.db.selectFrom('run').select('id').execute()).toEqual([])
  const { id: datasetId } = await api.db.selectFrom('dataset').select('id').executeTakeFirstOrThrow()
  const runId = await startTestRun(api, tenant, { agent: 'map', input: { datasetId, prompt: 'x', maxTokens: 5 } })
  await expect(purser('rows', runId)).rejects.toThrow('This run has asked about no rows yet.')
  const scope = { projectId: tenant.projectId }
  const map = { runId, path: 'rows', datasetId, ask: { model: 'steady', messages: [], maxTokens: 5 } }
  await openRowMap(api.db, scope, map)
  expect(await purser('rows', runId)).toMatch(/^"row","id","text",.*\r\n1,"1","a",open,/)
  await purser('rows', runId, '--path', 'rows', '--out', join(folder, 'out.jsonl'))
  expect(JSON.parse(await readFile(join(folder, 'out.jsonl'), 'utf8'))).toMatchObject({ row: 1, state: 'open' })
  await expect(purser('rows', runId, '--format', 'xml')).rejects.toThrow('--format is one of csv, jsonl and json')
  await expect(purser('top-up', runId)).rejects.toThrow('give --direct, --credit, or both.')
}, 240_000)
