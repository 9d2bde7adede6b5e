import { Runtime } from '@temporalio/worker'

/** Entry point: downloads the Temporal program of the release `argv[3]` into the folder `argv[2]`, with the SDK. */
const [downloadDir, version] = process.argv.slice(2)
if (downloadDir === undefined || version === undefined) throw new Error('Usage: temporal-download-main FOLDER VERSION')

const runtime = Runtime.instance()
const server = await runtime.createEphemeralServer({
  type: 'dev-server',
  exe: { type: 'cached-download', downloadDir, version, ttl: 0, sdkName: 'sdk-typescript', sdkVersion: version },
  namespace: 'default',
  ip: '127.0.0.1',
  port: null,
  uiPort: null,
  dbFilename: null,
  ui: false,
  log: { format: 'text', level: 'error' },
  extraArgs: [],
})
await runtime.shutdownEphemeralServer(server)
