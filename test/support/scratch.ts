import { rm } from 'node:fs/promises'
import { onTestFinished } from 'vitest'
import { makeScratchFolder } from './scratch-folder.ts'

/** A scratch folder that goes with the test. */
export async function useScratchFolder(): Promise<string> {
  const folder = await makeScratchFolder('scratch')
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  return folder
}
