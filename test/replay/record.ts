import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** Records the histories anew: runs the workflow tests, which keep the history of each scenario that has a name. */
const root = fileURLToPath(new URL('../../', import.meta.url))
const folder = fileURLToPath(new URL('histories/', import.meta.url))

const { status } = spawnSync('npx', ['vitest', 'run', '--project', 'e2e', 'test/e2e/workflow-', 'test/e2e/map-'], {
  cwd: root,
  env: { ...process.env, PURSER_RECORD_HISTORIES: folder },
  stdio: 'inherit',
})
process.exitCode = status ?? 1
