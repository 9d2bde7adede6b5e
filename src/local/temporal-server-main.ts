import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cacheFolder, dataFolder } from './cache.ts'
import { startPostgres } from './postgres.ts'
import { prepareTemporalServer } from './temporal-server.ts'

// `npm run temporal`: the production shape of Temporal without Docker, until it is told to end.
const { env } = process
const folder = join(dataFolder(env, fileURLToPath(new URL('../../', import.meta.url))), 'temporal-server')
const cacheDir = cacheFolder(env)
const logFile = (name: string): string => join(folder, 'logs', `${name}.log`)

const postgres = await startPostgres({
  cacheDir,
  dataDir: join(folder, 'postgres'),
  logFile: logFile('postgres'),
  durable: true,
})
try {
  const { adminUrl } = postgres
  const prepared = await prepareTemporalServer({ env, cacheDir, folder, logFile: logFile('temporal'), adminUrl })
  const server = await prepared.start()
  process.stdout.write(
    `Temporal serves on a Postgres of its own. In another terminal:\n\n  TEMPORAL_ADDRESS=${server.address} npm run dev\n\n` +
      `It ends with Ctrl-C; its data and logs are in ${folder}.\n`,
  )
  const told = Promise.withResolvers<string>()
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => told.resolve(''))
  const ended = (name: string) => () => `The ${name} process ended. Its log is in ${join(folder, 'logs')}.`
  const problem = await Promise.race([
    told.promise,
    server.exited.then(ended('temporal')),
    postgres.exited.then(ended('postgres')),
  ])
  await server.stop()
  if (problem !== '') throw new Error(problem)
} finally {
  await postgres.stop()
}
