export { research } from '#workflows/research.ts'
export { asker } from './asker.ts'
export { family } from './family.ts'
export { steps } from './steps.ts'
